//! CUDA itself: NVRTC, launches on candle's stream, cuBLAS.

use candle_core::cuda_backend::cudarc::cublas::{result::gemm_ex, sys as cublas};
use candle_core::cuda_backend::cudarc::driver::{
    CudaContext, CudaFunction, DevicePtr, DriverError, LaunchConfig, PushKernelArg, sys as driver,
};
use candle_core::cuda_backend::cudarc::nvrtc::{CompileError, CompileOptions, Ptx, compile_ptx_with_opts};
use candle_core::cuda_backend::{CudaDevice, CudaStorage, CudaStorageSlice};
use candle_core::{DType, Device, Shape, Tensor};
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use super::gpu::{Arg, Args, Gpu, Kernel, Matrix, int};
use crate::base::error::{Context, Result, anyhow, bail, ensure};

/// A CUDA device.
pub struct Cuda(Device);

impl Cuda {
    pub fn new(device: &CudaDevice) -> Self {
        Self(Device::Cuda(device.clone()))
    }
}

/// GPUs that the driver shows; 0 where it says that there is none.
///
/// # Errors
/// A driver that answers otherwise: too old, broken.
pub fn count() -> Result<usize> {
    match CudaContext::device_count() {
        Ok(n) => Ok(usize::try_from(n)?),
        Err(DriverError(driver::CUresult::CUDA_ERROR_NO_DEVICE)) => Ok(0),
        Err(e) => Err(e).context("asking the NVIDIA driver for GPUs"),
    }
}

/// Opens a GPU: one stream for all threads, memory kept between allocations.
///
/// # Errors
/// No such GPU, or one before compute capability 8.0, which has no bf16.
pub fn open(ordinal: usize) -> Result<Device> {
    let device = Device::new_cuda_with_stream(ordinal)?;
    let cuda = device.as_cuda_device()?;
    let arch = arch(cuda)?;
    ensure!(arch >= 80, "GPU {ordinal} has compute capability {}.{}, need 8.0", arch / 10, arch % 10);
    // SAFETY: every tensor lives on the one stream made above, which orders its uses.
    unsafe { cuda.disable_event_tracking() };
    keep_freed_memory(cuda)?;
    Ok(device)
}

static POISON: AtomicBool = AtomicBool::new(false);

/// Whether memory for results begins as NaN. For tests: what a kernel leaves out then shows.
pub fn poison(on: bool) {
    POISON.store(on, Ordering::Relaxed);
}

static PORTABLE: AtomicBool = AtomicBool::new(false);

/// Whether kernels do without the instructions of PTX that C++ has no word for (but the tensor cores'), to the same
/// bits. For comparisons of the two.
pub fn portable(on: bool) {
    PORTABLE.store(on, Ordering::Relaxed);
}

/// By default the driver gives freed memory back at every synchronisation, and an allocation asks for it anew.
fn keep_freed_memory(cuda: &CudaDevice) -> Result<()> {
    let stream = cuda.cuda_stream();
    if !stream.context().has_async_alloc() {
        return Ok(());
    }
    let mut pool = std::ptr::null_mut();
    let mut threshold = u64::MAX;
    // SAFETY: the device is open; `pool` and `threshold` outlive the calls, and the attribute is a u64.
    unsafe {
        driver::cuDeviceGetDefaultMemPool(&mut pool, stream.context().cu_device()).result()?;
        let attribute = driver::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        driver::cuMemPoolSetAttribute(pool, attribute, (&raw mut threshold).cast()).result()?;
    }
    Ok(())
}

/// Compute capability 9.0 is 90.
fn arch(cuda: &CudaDevice) -> Result<i32> {
    let (major, minor) = cuda.cuda_stream().context().compute_capability()?;
    Ok(10 * major + minor)
}

/// PTX by key of the kernel and architecture.
static COMPILED: LazyLock<Mutex<HashMap<String, Arc<str>>>> = LazyLock::new(Mutex::default);

/// A kernel's source as PTX. Needs libnvrtc, but no GPU.
///
/// # Errors
/// The compiler's log.
pub fn compile(kernel: &Kernel, arch: i32) -> Result<Arc<str>> {
    let key = format!("{} {arch}", kernel.key());
    // A poisoned lock means that another thread panicked between two insertions; each is whole.
    let compiled = || COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(ptx) = compiled().get(&key) {
        return Ok(ptx.clone());
    }
    let mut options = vec![format!("--gpu-architecture=compute_{arch}")];
    options.extend(kernel.defines.iter().map(|(name, value)| format!("-D{name}={value}")));
    let name = Some(format!("{}.cu", kernel.source.name));
    let options = CompileOptions { options, name, ..Default::default() };
    let ptx = compile_ptx_with_opts(kernel.source.text(), options).map_err(|e| match e {
        CompileError::CompileError { log, .. } => anyhow!("{}", log.to_string_lossy()),
        other => anyhow!("{other:?}"),
    });
    let ptx: Arc<str> = ptx.with_context(|| format!("compiling {}", kernel.key()))?.to_src().into();
    compiled().insert(key, ptx.clone());
    Ok(ptx)
}

/// What names a loaded kernel: GPU, source, function, definitions.
type Name = (usize, &'static str, &'static str, Vec<(&'static str, i64)>);

/// Kernels in the driver: a launch looks its own up and asks nobody.
static LOADED: LazyLock<Mutex<HashMap<Name, CudaFunction>>> = LazyLock::new(Mutex::default);

/// The kernel on the device's GPU, compiled and loaded where it has not been.
fn loaded(cuda: &CudaDevice, kernel: &Kernel) -> Result<CudaFunction> {
    let (stream, Kernel { source, function, defines }) = (cuda.cuda_stream(), kernel.clone());
    let context = stream.context();
    let mut name = (context.ordinal(), source.name, function, defines);
    if PORTABLE.load(Ordering::Relaxed) {
        name.3.push(("PORTABLE", 1));
    }
    // As in `compile`, whole entries only.
    let mut all = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(function) = all.get(&name) {
        return Ok(function.clone());
    }
    let kernel = Kernel { source, function, defines: name.3.clone() };
    let ptx = compile(&kernel, arch(cuda)?)?;
    let load = || context.load_module(Ptx::from_src(&*ptx))?.load_function(function);
    let loaded = load().with_context(|| format!("loading {function} of {}", kernel.key()))?;
    all.insert(name, loaded.clone());
    Ok(loaded)
}

impl Gpu for Cuda {
    fn device(&self) -> &Device {
        &self.0
    }

    fn empty(&self, shape: Shape, dtype: DType) -> Result<Tensor> {
        if POISON.load(Ordering::Relaxed) {
            let nan = Tensor::new(f32::NAN, &self.0)?.to_dtype(dtype)?;
            return Ok(nan.broadcast_as(shape)?.contiguous()?.copy()?);
        }
        // SAFETY: by contract of the trait nobody relies on the contents.
        Ok(unsafe { Tensor::empty(shape, dtype, &self.0)? })
    }

    fn prepare(&self, kernel: &Kernel) -> Result<()> {
        loaded(self.0.as_cuda_device()?, kernel).map(drop)
    }

    fn launch(&self, kernel: &Kernel, grid: (usize, usize), block: usize, args: &Args<'_>) -> Result<()> {
        let cuda = self.0.as_cuda_device()?;
        let (function, stream) = (loaded(cuda, kernel)?, cuda.cuda_stream());
        let mut builder = stream.launch_builder(&function);
        for arg in args.iter() {
            match arg {
                Arg::Pointer(x) => builder.arg(x),
                Arg::Int(x) => builder.arg(x),
                Arg::Long(x) => builder.arg(x),
                Arg::Float(x) => builder.arg(x),
                Arg::Double(x) => builder.arg(x),
            };
        }
        let grid_dim = (u32::try_from(grid.0)?, u32::try_from(grid.1)?, 1);
        let config = LaunchConfig { grid_dim, block_dim: (u32::try_from(block)?, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: the arguments are those of the kernel, whose accesses stay inside the tensors behind them; both
        // are held by the emulated tests.
        unsafe { builder.launch(config) }.with_context(|| {
            format!("launching {} of {} on {grid:?} blocks of {block}", kernel.function, kernel.key())
        })?;
        Ok(())
    }

    fn product(&self, out: Matrix, accumulate: bool, a: Matrix, b: Matrix) -> Result<()> {
        let blas = self.0.as_cuda_device()?.cublas_handle();
        let (m, k) = a.dims();
        let n = out.cols;
        let (alpha, beta) = (1.0f32, if accumulate { 1.0f32 } else { 0.0 });
        let pointer = |x: &f32| (&raw const *x).cast::<c_void>();
        // cuBLAS counts by columns: it computes outᵀ = bᵀ·aᵀ, and a row-major matrix is its own transpose to it.
        // SAFETY: addresses and sizes are those of tensors that the caller borrows.
        unsafe {
            gemm_ex(
                *blas.handle(),
                operation(b),
                operation(a),
                int(n)?,
                int(m)?,
                int(k)?,
                pointer(&alpha),
                b.address as *const c_void,
                data_type(b.dtype)?,
                int(b.stride)?,
                a.address as *const c_void,
                data_type(a.dtype)?,
                int(a.stride)?,
                pointer(&beta),
                out.address as *mut c_void,
                data_type(out.dtype)?,
                int(out.stride)?,
                cublas::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                // The variant named after tensor cores may round f32 operands to f16 on its way.
                cublas::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }
        .with_context(|| format!("a product of {:?} and {:?} on the GPU", a.dims(), b.dims()))
    }
}

fn operation(x: Matrix) -> cublas::cublasOperation_t {
    match x.transposed {
        true => cublas::cublasOperation_t::CUBLAS_OP_T,
        false => cublas::cublasOperation_t::CUBLAS_OP_N,
    }
}

fn data_type(dtype: DType) -> Result<cublas::cudaDataType> {
    Ok(match dtype {
        DType::F32 => cublas::cudaDataType_t::CUDA_R_32F,
        DType::BF16 => cublas::cudaDataType_t::CUDA_R_16BF,
        other => bail!("products on the GPU are of f32 or bf16, not {other:?}"),
    })
}

/// Where a storage's memory begins.
pub(super) fn address(storage: &CudaStorage) -> Result<u64> {
    let stream = storage.device.cuda_stream();
    Ok(match &storage.slice {
        CudaStorageSlice::F32(x) => x.device_ptr(&stream).0,
        CudaStorageSlice::BF16(x) => x.device_ptr(&stream).0,
        CudaStorageSlice::U32(x) => x.device_ptr(&stream).0,
        CudaStorageSlice::I64(x) => x.device_ptr(&stream).0,
        _ => bail!("a GPU kernel takes f32, bf16, u32 and i64"),
    })
}
