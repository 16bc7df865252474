//! A GPU made of the machine's C++ compiler: kernel sources behind `shim.hpp`, and products by three loops.

use candle_core::{DType, Device, Shape, Tensor};
use half::bf16;
use kto_eval::base::error::{Result, anyhow, ensure};
use kto_eval::base::hash::Hasher;
use kto_eval::kernels::cuda::{Arg, Args, Gpu, Kernel, Matrix};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

const SHIM: &str = include_str!("shim.hpp");
/// Elements before and after every allocation that must stay as they are.
const ZONE: usize = 64;

static LAUNCHING: Mutex<()> = Mutex::new(());

type Launch = unsafe extern "C" fn(*const u32, u32, *const c_char, *mut *mut c_void) -> c_int;

pub struct Emulator {
    compiler: String,
    libraries: RefCell<HashMap<String, *mut c_void>>,
    allocations: RefCell<Vec<Tensor>>,
    /// Every kernel that was launched, by name.
    pub launched: RefCell<HashMap<&'static str, usize>>,
}

impl Emulator {
    /// `None` where the machine has no C++ compiler.
    pub fn new() -> Option<Self> {
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
        let there = Command::new(&compiler).arg("--version").output().is_ok_and(|o| o.status.success());
        there.then(|| Self {
            compiler,
            libraries: RefCell::default(),
            allocations: RefCell::default(),
            launched: RefCell::default(),
        })
    }

    /// Nothing was written outside of what was allocated since the last call.
    #[track_caller]
    pub fn check_zones(&self) {
        for whole in self.allocations.borrow_mut().drain(..) {
            let n = whole.elem_count();
            for start in [0, n - ZONE] {
                let zone: Vec<f32> =
                    whole.narrow(0, start, ZONE).unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap();
                let untouched = |x: &f32| x.is_nan() || *x == u32::MAX as f32;
                assert!(zone.iter().all(untouched), "a kernel wrote beyond its memory");
            }
        }
    }

    fn function(&self, kernel: &Kernel) -> Result<Launch> {
        let mut libraries = self.libraries.borrow_mut();
        let library = match libraries.get(&kernel.key()) {
            Some(library) => *library,
            None => {
                let path = CString::new(self.build(kernel)?.to_str().unwrap())?;
                // SAFETY: the library was built from our own sources; loading it runs no code.
                let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
                ensure!(!library.is_null(), "{} cannot be loaded", kernel.key());
                libraries.insert(kernel.key(), library);
                library
            }
        };
        let name = CString::new(format!("launch_{}", kernel.function))?;
        // SAFETY: the handle is open; a symbol of this name has this type, by the shim's EXPORT.
        let symbol = unsafe { libc::dlsym(library, name.as_ptr()) };
        ensure!(!symbol.is_null(), "no kernel {} in {}", kernel.function, kernel.source.name);
        // SAFETY: as above.
        Ok(unsafe { std::mem::transmute::<*mut c_void, Launch>(symbol) })
    }

    /// The kernel's source as a shared library, built once for each text.
    fn build(&self, kernel: &Kernel) -> Result<PathBuf> {
        let defines: String =
            kernel.defines.iter().map(|(name, x)| format!("#define {name} {x}\n")).collect();
        let text = kernel.source.text();
        let exports: String = names(&text).map(|name| format!("EXPORT({name})\n")).collect();
        let source = format!("{defines}{SHIM}{text}{exports}");
        let hash = Hasher::new("kto-eval/emulated").part(source.as_bytes()).hex();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let place = folder.join(format!("{}-{}.so", kernel.source.name, &hash[..16]));
        if place.exists() {
            return Ok(place);
        }
        // Another test may build the same: each writes files of its own.
        let name = format!("{}-{:?}", std::process::id(), std::thread::current().id());
        let (aside, text) = (folder.join(format!("{name}.part")), folder.join(format!("{name}.cpp")));
        std::fs::write(&text, source)?;
        let flags =
            ["-std=c++17", "-O2", "-w", "-shared", "-fPIC", "-fno-strict-aliasing", "-U_FORTIFY_SOURCE"];
        let out = Command::new(&self.compiler).args(flags).arg("-o").arg(&aside).arg(&text).output()?;
        if !out.status.success() {
            return Err(anyhow!("{}: {}", kernel.key(), String::from_utf8_lossy(&out.stderr)));
        }
        std::fs::remove_file(text)?;
        std::fs::rename(&aside, &place)?;
        Ok(place)
    }
}

/// The kernels of a source.
pub fn names(text: &str) -> impl Iterator<Item = &str> {
    let heads = text.match_indices("\nKERNEL ").map(|(at, head)| &text[at + head.len()..]);
    heads.map(|rest| {
        let bounds = rest.strip_prefix("__launch_bounds__(").and_then(|rest| rest.split_once(") "));
        let rest = bounds.map_or(rest, |(_, rest)| rest);
        &rest[..rest.find('(').unwrap()]
    })
}

impl Gpu for Emulator {
    fn device(&self) -> &Device {
        &Device::Cpu
    }

    fn empty(&self, shape: Shape, dtype: DType) -> Result<Tensor> {
        let n = shape.elem_count();
        let whole = match dtype {
            DType::U32 => Tensor::new(u32::MAX, &Device::Cpu)?,
            _ => Tensor::new(f32::NAN, &Device::Cpu)?.to_dtype(dtype)?,
        };
        let whole = whole.broadcast_as(n + 2 * ZONE)?.contiguous()?;
        self.allocations.borrow_mut().push(whole.clone());
        Ok(whole.narrow(0, ZONE, n)?.reshape(shape)?)
    }

    fn prepare(&self, kernel: &Kernel) -> Result<()> {
        self.launched.borrow_mut().entry(kernel.function).or_default();
        Ok(())
    }

    fn launch(&self, kernel: &Kernel, grid: (usize, usize), block: usize, args: &Args<'_>) -> Result<()> {
        assert!(block.is_multiple_of(32) && block <= 1024 && grid.1 <= 65535 && grid.0 >= 1 && grid.1 >= 1);
        *self.launched.borrow_mut().entry(kernel.function).or_default() += 1;
        let function = self.function(kernel)?;
        let mut words = Vec::new();
        let mut kinds = String::new();
        for arg in args.iter() {
            let (kind, word) = match *arg {
                Arg::Pointer(x) => ('p', x),
                Arg::Int(x) => ('i', u64::from(x.cast_unsigned())),
                Arg::Long(x) => ('l', x.cast_unsigned()),
                Arg::Float(x) => ('f', u64::from(x.to_bits())),
                Arg::Double(x) => ('d', x.to_bits()),
            };
            kinds.push(kind);
            words.push(word);
        }
        let mut places: Vec<*mut c_void> = words.iter_mut().map(|w| (&raw mut *w).cast()).collect();
        let (grid, kinds) = ([grid.0 as u32, grid.1 as u32], CString::new(kinds)?);
        // A library has one set of threads, whoever has opened it.
        let _alone = LAUNCHING.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the shim checks number and kinds of the arguments; the pointers are to live tensors.
        let code = unsafe { function(grid.as_ptr(), block as u32, kinds.as_ptr(), places.as_mut_ptr()) };
        ensure!(code == 0, "{} of {}: code {code}", kernel.function, kernel.key());
        Ok(())
    }

    fn product(&self, out: Matrix, accumulate: bool, a: Matrix, b: Matrix) -> Result<()> {
        let ((m, k), (_, n)) = (a.dims(), b.dims());
        let (left, right) = (numbers(a), numbers(b));
        let row =
            |x: &Matrix, i: usize, j: usize| if x.transposed { j * x.stride + i } else { i * x.stride + j };
        for i in 0..m {
            for j in 0..n {
                let sum: f64 = (0..k).map(|l| left[row(&a, i, l)] * right[row(&b, l, j)]).sum();
                // SAFETY: i and j are inside of `out`, whose tensor the caller holds.
                unsafe {
                    match out.dtype {
                        DType::BF16 => {
                            let place = (out.address as *mut bf16).add(i * out.stride + j);
                            let old = if accumulate { f64::from(*place) } else { 0.0 };
                            *place = bf16::from_f64(old + sum);
                        }
                        _ => {
                            let place = (out.address as *mut f32).add(i * out.stride + j);
                            let old = if accumulate { f64::from(*place) } else { 0.0 };
                            *place = (old + sum) as f32;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

fn numbers(x: Matrix) -> Vec<f64> {
    let n = (x.rows - 1) * x.stride + x.cols;
    // SAFETY: the matrix lies in a tensor that the caller holds.
    unsafe {
        match x.dtype {
            DType::BF16 => std::slice::from_raw_parts(x.address as *const bf16, n)
                .iter()
                .map(|x| f64::from(*x))
                .collect(),
            _ => {
                std::slice::from_raw_parts(x.address as *const f32, n).iter().map(|x| f64::from(*x)).collect()
            }
        }
    }
}
