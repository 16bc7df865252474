//! `--device`.

use candle_core::Device;

use crate::base::error::{Context, HintExt, Result, anyhow};
use crate::plan::{Dtype, Plan, TrainSpec};

/// `auto` (the first GPU if this build and this machine have one, else the CPU), `cpu`, `cuda` or `cuda:N`.
///
/// # Errors
/// Another name; a GPU that is not there, or that is there and cannot be used; a GPU asked of a build without CUDA.
pub fn device(name: &str) -> Result<Device> {
    let cuda = |ordinal: usize| {
        if !candle_core::utils::cuda_is_available() {
            return Err(anyhow!("device `{name}`: this program was built without CUDA"))
                .hint("build it with `cargo build --release --features cuda`, or take --device cpu");
        }
        open(ordinal).with_context(|| format!("device `{name}` cannot be opened"))
    };
    match name {
        "auto" => automatic(count(), || open(0)),
        "cpu" => Ok(Device::Cpu),
        "cuda" => cuda(0),
        _ => match name.strip_prefix("cuda:").and_then(|n| n.parse().ok()) {
            Some(ordinal) => cuda(ordinal),
            None => Err(anyhow!("unknown device `{name}` (known: auto, cpu, cuda, cuda:N)")),
        },
    }
}

/// The CPU where there is no GPU. One that is there and does not work is not passed over: whoever has it would wait
/// for the CPU for days and not know why.
fn automatic(gpus: Result<usize>, open: impl Fn() -> Result<Device>) -> Result<Device> {
    let gpu = gpus.and_then(|n| if n == 0 { Ok(None) } else { open().map(Some) });
    let gpu = gpu.context("there is a GPU, and it cannot be used");
    Ok(gpu.hint("--device cpu does without it")?.unwrap_or(Device::Cpu))
}

#[cfg(feature = "cuda")]
fn count() -> Result<usize> {
    crate::kernels::cuda::device::count()
}

#[cfg(not(feature = "cuda"))]
fn count() -> Result<usize> {
    Ok(0)
}

#[cfg(feature = "cuda")]
fn open(ordinal: usize) -> Result<Device> {
    crate::kernels::cuda::device::open(ordinal)
}

#[cfg(not(feature = "cuda"))]
fn open(_: usize) -> Result<Device> {
    Err(anyhow!("this program was built without CUDA"))
}

/// What a plan leaves as it suits a CPU, for whoever runs it on a GPU.
pub(super) fn cpu_settings(plan: &Plan) -> Option<String> {
    let default = TrainSpec::default().micro_tokens;
    let single = plan.model.dtype == Dtype::F32;
    let small = plan.arms.iter().any(|arm| arm.trainer.is_none() && arm.train.micro_tokens == default);
    let better = [(single, "model.dtype = \"bf16\""), (small, "train.micro_tokens = 16384")];
    let better: Vec<&str> =
        better.into_iter().filter(|(applies, _)| *applies).map(|(_, name)| name).collect();
    let what =
        format!("the plan is set for a CPU; a GPU is several times faster with {}", better.join(" and "));
    (!better.is_empty()).then_some(what)
}

/// The device as records name it.
pub(super) fn name(device: &Device) -> String {
    match device.location() {
        candle_core::DeviceLocation::Cpu => "cpu".to_owned(),
        candle_core::DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        candle_core::DeviceLocation::Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_passes_over_no_gpu_and_over_no_broken_one() {
        let broken = || Err(anyhow!("compute capability 7.5, need 8.0"));
        assert!(automatic(Ok(0), broken).unwrap().is_cpu());
        for found in [automatic(Ok(1), broken), automatic(Err(anyhow!("driver too old")), broken)] {
            let text = format!("{:#}", found.unwrap_err());
            assert!(text.contains("cannot be used") && text.contains(":"), "{text}");
        }
    }

    #[test]
    fn a_plan_of_cpu_settings_is_told_of_better_ones() {
        let mut plan = Plan::open("quickstart", &crate::plan::Overrides::default()).unwrap();
        plan.model.dtype = Dtype::F32;
        plan.arms.iter_mut().for_each(|arm| arm.train.micro_tokens = TrainSpec::default().micro_tokens);
        let text = cpu_settings(&plan).unwrap();
        assert!(text.contains("bf16") && text.contains("micro_tokens"), "{text}");
        plan.model.dtype = Dtype::Bf16;
        assert!(!cpu_settings(&plan).unwrap().contains("bf16"));
        plan.arms.iter_mut().for_each(|arm| arm.train.micro_tokens = 16_384);
        assert_eq!(cpu_settings(&plan), None);
    }
}
