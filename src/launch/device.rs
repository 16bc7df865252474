//! `--device`.

use candle_core::Device;

use crate::base::error::{Context, HintExt, Result, anyhow};

/// `auto` (the first GPU if this build and this machine have one, else the CPU), `cpu`, `cuda` or `cuda:N`.
///
/// # Errors
/// Another name; a GPU that is not there; a GPU asked of a build without CUDA.
pub fn device(name: &str) -> Result<Device> {
    let cuda = |ordinal: usize| {
        if !candle_core::utils::cuda_is_available() {
            return Err(anyhow!("device `{name}`: this program was built without CUDA"))
                .hint("build it with `cargo build --release --features cuda`, or take --device cpu");
        }
        open(ordinal).with_context(|| format!("device `{name}` cannot be opened"))
    };
    match name {
        "auto" if candle_core::utils::cuda_is_available() => Ok(open(0).unwrap_or(Device::Cpu)),
        "auto" | "cpu" => Ok(Device::Cpu),
        "cuda" => cuda(0),
        _ => match name.strip_prefix("cuda:").and_then(|n| n.parse().ok()) {
            Some(ordinal) => cuda(ordinal),
            None => Err(anyhow!("unknown device `{name}` (known: auto, cpu, cuda, cuda:N)")),
        },
    }
}

#[cfg(feature = "cuda")]
fn open(ordinal: usize) -> Result<Device> {
    crate::kernels::cuda::device::open(ordinal)
}

#[cfg(not(feature = "cuda"))]
fn open(_: usize) -> Result<Device> {
    Err(anyhow!("this program was built without CUDA"))
}

/// The device as records name it.
pub(super) fn name(device: &Device) -> String {
    match device.location() {
        candle_core::DeviceLocation::Cpu => "cpu".to_owned(),
        candle_core::DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        candle_core::DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}
