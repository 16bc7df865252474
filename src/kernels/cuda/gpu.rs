//! What launchers need of a GPU.

use candle_core::{DType, Device, Shape, Storage, Tensor};
use std::cell::RefCell;
use std::marker::PhantomData;
use std::rc::Rc;

use crate::base::error::{Result, bail, ensure};

/// Kernels that are compiled together: the prelude, then these texts.
pub struct Source {
    pub name: &'static str,
    pub parts: &'static [&'static str],
}

const PRELUDE: &str = include_str!("prelude.cuh");

impl Source {
    pub fn text(&self) -> String {
        format!("{PRELUDE}{}", self.parts.concat())
    }
}

/// A function of a source, and the macros that the source is compiled with.
#[derive(Clone)]
pub struct Kernel {
    pub source: &'static Source,
    pub function: &'static str,
    pub defines: Vec<(&'static str, i64)>,
}

impl Kernel {
    pub fn new(source: &'static Source, function: &'static str, bf16: bool) -> Self {
        Self { source, function, defines: vec![("BF16", bf16.into())] }
    }
    #[must_use]
    pub fn with(mut self, name: &'static str, value: usize) -> Self {
        self.defines.push((name, value as i64));
        self
    }
    /// Names the compiled source.
    pub fn key(&self) -> String {
        let defines: String = self.defines.iter().map(|(name, value)| format!(" {name}={value}")).collect();
        format!("{}{defines}", self.source.name)
    }
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arg {
    Pointer(u64),
    Int(i32),
    Long(i64),
    Float(f32),
    Double(f64),
}

/// A kernel's arguments. They borrow the tensors behind them: memory that is freed before the launch is somebody
/// else's when the kernel runs.
#[derive(Default)]
pub struct Args<'a>(Vec<Arg>, PhantomData<&'a Tensor>);

impl<'a> Args<'a> {
    pub fn push(&mut self, arg: impl IntoArg<'a>) -> Result<()> {
        self.0.push(arg.into_arg()?);
        Ok(())
    }
    pub fn extend(&mut self, more: Args<'a>) {
        self.0.extend(more.0);
    }
}

impl std::ops::Deref for Args<'_> {
    type Target = [Arg];
    fn deref(&self) -> &[Arg] {
        &self.0
    }
}

/// `args![&tensor, Some(&tensor), 3i32, 1.0f32]`: tensors become pointers, `None` a null.
macro_rules! args {
    ($($arg:expr),* $(,)?) => {{
        let mut all = $crate::kernels::cuda::gpu::Args::default();
        $(all.push($arg)?;)*
        all
    }};
}
pub(super) use args;

/// What [`args`] takes.
pub trait IntoArg<'a> {
    fn into_arg(self) -> Result<Arg>;
}
impl<'a> IntoArg<'a> for &'a Tensor {
    fn into_arg(self) -> Result<Arg> {
        Ok(Arg::Pointer(address(self)?))
    }
}
impl<'a> IntoArg<'a> for Option<&'a Tensor> {
    fn into_arg(self) -> Result<Arg> {
        self.map_or(Ok(Arg::Pointer(0)), IntoArg::into_arg)
    }
}
impl IntoArg<'_> for i32 {
    fn into_arg(self) -> Result<Arg> {
        Ok(Arg::Int(self))
    }
}
impl IntoArg<'_> for i64 {
    fn into_arg(self) -> Result<Arg> {
        Ok(Arg::Long(self))
    }
}
impl IntoArg<'_> for f32 {
    fn into_arg(self) -> Result<Arg> {
        Ok(Arg::Float(self))
    }
}
impl IntoArg<'_> for f64 {
    fn into_arg(self) -> Result<Arg> {
        Ok(Arg::Double(self))
    }
}

/// A size as a kernel takes it.
pub fn int(n: usize) -> Result<i32> {
    match i32::try_from(n) {
        Ok(n) => Ok(n),
        Err(_) => bail!("{n} is more than a GPU kernel counts to here; take smaller micro-batches"),
    }
}

/// A matrix in memory, row-major: (rows, cols), or its transpose.
#[derive(Clone, Copy, Debug)]
pub struct Matrix {
    pub address: u64,
    pub dtype: DType,
    /// As stored.
    pub rows: usize,
    pub cols: usize,
    /// Elements from one row to the next.
    pub stride: usize,
    pub transposed: bool,
}

impl Matrix {
    pub fn new(tensor: &Tensor) -> Result<Self> {
        Self::columns(tensor, 0, tensor.dim(1)?)
    }
    /// `cols` columns of a tensor, from `start` on, where they lie.
    pub fn columns(tensor: &Tensor, start: usize, cols: usize) -> Result<Self> {
        let ((rows, stride), dtype) = (tensor.dims2()?, tensor.dtype());
        ensure!(start + cols <= stride, "columns {start}..{} of {:?}", start + cols, tensor.shape());
        let address = address(tensor)? + (start * dtype.size_in_bytes()) as u64;
        Ok(Self { address, dtype, rows, cols, stride, transposed: false })
    }
    #[must_use]
    pub fn t(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }
    /// As used.
    pub fn dims(&self) -> (usize, usize) {
        if self.transposed { (self.cols, self.rows) } else { (self.rows, self.cols) }
    }
}

/// A GPU, or what stands for one.
pub trait Gpu {
    fn device(&self) -> &Device;
    /// Memory whose contents nobody relies on.
    fn empty(&self, shape: Shape, dtype: DType) -> Result<Tensor>;
    /// Compiles and loads a kernel ahead of its first launch.
    fn prepare(&self, _kernel: &Kernel) -> Result<()> {
        Ok(())
    }
    /// Enqueues a kernel; the tensors behind its arguments may be dropped right after.
    fn launch(&self, kernel: &Kernel, grid: (usize, usize), block: usize, args: &Args<'_>) -> Result<()>;
    /// out = a·b, or out += a·b; sums in f32, no dimension is 0.
    fn product(&self, out: Matrix, accumulate: bool, a: Matrix, b: Matrix) -> Result<()>;

    fn upload(&self, numbers: &[u32]) -> Result<Tensor> {
        // Kernels take addresses, which an empty tensor may not have.
        let one = [0];
        let numbers = if numbers.is_empty() { &one } else { numbers };
        Ok(Tensor::new(numbers, self.device())?)
    }
    fn upload_f32(&self, numbers: Vec<f32>) -> Result<Tensor> {
        let numbers = if numbers.is_empty() { vec![0.0] } else { numbers };
        let n = numbers.len();
        Ok(Tensor::from_vec(numbers, n, self.device())?)
    }
}

/// out (m, n) (+)= a (m, k)·b (k, n).
pub fn product(gpu: &dyn Gpu, out: Matrix, accumulate: bool, a: Matrix, b: Matrix) -> Result<()> {
    let ((m, k), (l, n)) = (a.dims(), b.dims());
    ensure!(
        k == l && out.dims() == (m, n) && a.dtype == b.dtype,
        "a product of ({m}, {k}) {:?} and ({l}, {n}) {:?} into {:?}",
        a.dtype,
        b.dtype,
        out.dims()
    );
    ensure!(k > 0 || accumulate, "a product over nothing");
    if m == 0 || n == 0 || k == 0 {
        return Ok(());
    }
    gpu.product(out, accumulate, a, b)
}

/// Where a contiguous tensor's numbers begin.
pub fn address(tensor: &Tensor) -> Result<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    let Some((start, _)) = layout.contiguous_offsets() else {
        bail!("a GPU kernel needs a contiguous tensor, not strides {:?}", layout.stride());
    };
    let base = match &*storage {
        Storage::Cpu(cpu) => host_address(cpu)?,
        #[cfg(feature = "cuda")]
        Storage::Cuda(cuda) => super::device::address(cuda)?,
        _ => bail!("a GPU kernel was given a tensor on another device"),
    };
    Ok(base + (start * tensor.dtype().size_in_bytes()) as u64)
}

fn host_address(storage: &candle_core::CpuStorage) -> Result<u64> {
    use candle_core::CpuStorage;
    Ok(match storage {
        CpuStorage::F32(x) => x.as_ptr() as u64,
        CpuStorage::BF16(x) => x.as_ptr() as u64,
        CpuStorage::U32(x) => x.as_ptr() as u64,
        CpuStorage::I64(x) => x.as_ptr() as u64,
        _ => bail!("a GPU kernel takes f32, bf16, u32 and i64"),
    })
}

thread_local! {
    static EMULATED: RefCell<Option<Rc<dyn Gpu>>> = const { RefCell::new(None) };
}

/// While it lives, this thread's f32 and bf16 tensors on the CPU go through `Gpu`'s kernels. For tests.
pub struct Emulation(());

impl Emulation {
    #[must_use]
    pub fn begin(gpu: Rc<dyn Gpu>) -> Self {
        EMULATED.set(Some(gpu));
        Self(())
    }
}

impl Drop for Emulation {
    fn drop(&mut self) {
        EMULATED.set(None);
    }
}

/// Whether [`Emulation`] is on in this thread.
pub fn is_emulated() -> bool {
    EMULATED.with_borrow(Option::is_some)
}

/// The GPU whose kernels apply to `tensor`: f32 or bf16 on a CUDA device.
pub fn of(tensor: &Tensor) -> Option<Rc<dyn Gpu>> {
    if !matches!(tensor.dtype(), DType::F32 | DType::BF16) {
        return None;
    }
    match tensor.device() {
        Device::Cpu => EMULATED.with_borrow(Clone::clone),
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => Some(Rc::new(super::device::Cuda::new(device))),
        _ => None,
    }
}

/// The widest run of elements up to 16 bytes that every number of `counts` is a multiple of and every tensor of
/// `tensors` begins at.
pub fn vector(dtype: DType, counts: &[usize], tensors: &[&Tensor]) -> Result<usize> {
    let size = dtype.size_in_bytes();
    let starts = tensors.iter().map(|t| Ok(address(t)? as usize / size)).collect::<Result<Vec<_>>>()?;
    let fits = |v: &usize| counts.iter().chain(&starts).all(|n| n.is_multiple_of(*v));
    Ok([8, 4, 2].into_iter().filter(|v| v * size <= 16).find(fits).unwrap_or(1))
}

/// [`vector`] over tensors of different types, each of which holds `counts` numbers.
pub fn common_vector(counts: &[usize], tensors: &[&Tensor]) -> Result<usize> {
    tensors.iter().try_fold(8, |least: usize, x| Ok(least.min(vector(x.dtype(), counts, &[x])?)))
}

pub fn is_bf16(tensor: &Tensor) -> bool {
    tensor.dtype() == DType::BF16
}

/// Threads for a row of `n` numbers: whole warps.
pub fn threads_for(n: usize) -> usize {
    n.div_ceil(32).next_power_of_two().clamp(1, 16) * 32
}
