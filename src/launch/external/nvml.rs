//! NVIDIA's management library, loaded where a driver has brought it: no build and no machine without one needs it.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_int, c_uint, c_ulonglong, c_void};

/// Its name since the first driver that has it.
const LIBRARY: &CStr = c"libnvidia-ml.so.1";
const SUCCESS: c_int = 0;
const INSUFFICIENT_SIZE: c_int = 7;
/// `NVML_VALUE_NOT_AVAILABLE`: the driver does not tell.
const NOT_AVAILABLE: c_ulonglong = c_ulonglong::MAX;
const MIB: f64 = (1u64 << 20) as f64;

/// `nvmlProcessInfo_t` of nvml.h, as the `_v3` function fills it.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct ProcessInfo {
    pid: c_uint,
    used: c_ulonglong,
    gpu_instance: c_uint,
    compute_instance: c_uint,
}

/// `nvmlMemory_t`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct MemoryInfo {
    total: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

type Device = *mut c_void;
type Processes = unsafe extern "C" fn(Device, *mut c_uint, *mut ProcessInfo) -> c_int;
type Memory = unsafe extern "C" fn(Device, *mut MemoryInfo) -> c_int;
type Shutdown = unsafe extern "C" fn() -> c_int;

/// Memory in use at one moment, MiB.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct InUse {
    /// By process, over all devices.
    pub by_pid: BTreeMap<i32, f64>,
    /// Of all devices, whoever holds it.
    pub devices: f64,
}

/// An initialised library and its devices.
pub(super) struct Nvml {
    library: *mut c_void,
    devices: Vec<Device>,
    processes: Processes,
    memory: Memory,
    shutdown: Shutdown,
}

// SAFETY: "NVML is thread-safe so it is safe to make simultaneous NVML calls from multiple threads" (its manual).
unsafe impl Send for Nvml {}

impl Nvml {
    /// `None`: no driver, one from before 2021 (510), or no device.
    pub fn load() -> Option<Self> {
        Self::load_from(LIBRARY)
    }

    fn load_from(name: &CStr) -> Option<Self> {
        // SAFETY: the library's constructors do nothing that a loaded program must be ready for.
        let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if library.is_null() {
            return None;
        }
        let found = Self::start(library);
        if found.is_none() {
            // SAFETY: nothing of it is kept.
            unsafe { libc::dlclose(library) };
        }
        found
    }

    fn start(library: *mut c_void) -> Option<Self> {
        let find = |name: &CStr| {
            // SAFETY: the handle is open, the name ends in 0.
            let symbol = unsafe { libc::dlsym(library, name.as_ptr()) };
            (!symbol.is_null()).then_some(symbol)
        };
        let init = find(c"nvmlInit_v2")?;
        let count = find(c"nvmlDeviceGetCount_v2")?;
        let handle = find(c"nvmlDeviceGetHandleByIndex_v2")?;
        let processes = find(c"nvmlDeviceGetComputeRunningProcesses_v3")?;
        let memory = find(c"nvmlDeviceGetMemoryInfo")?;
        let shutdown = find(c"nvmlShutdown")?;
        // SAFETY: the types are those of nvml.h, under the names that it gives these versions.
        unsafe {
            let init: unsafe extern "C" fn() -> c_int = std::mem::transmute(init);
            let count: unsafe extern "C" fn(*mut c_uint) -> c_int = std::mem::transmute(count);
            let handle: unsafe extern "C" fn(c_uint, *mut Device) -> c_int = std::mem::transmute(handle);
            let processes: Processes = std::mem::transmute(processes);
            let memory: Memory = std::mem::transmute(memory);
            let shutdown: Shutdown = std::mem::transmute(shutdown);
            if init() != SUCCESS {
                return None;
            }
            let mut nvml = Self { library, devices: vec![], processes, memory, shutdown };
            let mut devices = 0;
            if count(&mut devices) == SUCCESS {
                for index in 0..devices {
                    let mut device = std::ptr::null_mut();
                    if handle(index, &mut device) == SUCCESS {
                        nvml.devices.push(device);
                    }
                }
            }
            if nvml.devices.is_empty() {
                (nvml.shutdown)();
                // `load_from` closes the library.
                std::mem::forget(nvml);
                return None;
            }
            Some(nvml)
        }
    }

    /// What is in use now.
    pub fn look(&self) -> InUse {
        let mut now = InUse::default();
        for device in &self.devices {
            let mut memory = MemoryInfo::default();
            // SAFETY: the device's handle is valid until the shutdown, the struct is the library's own.
            if unsafe { (self.memory)(*device, &mut memory) } == SUCCESS {
                now.devices += memory.used as f64 / MIB;
            }
            for process in self.processes(*device).iter().filter(|p| p.used != NOT_AVAILABLE) {
                *now.by_pid.entry(process.pid.cast_signed()).or_default() += process.used as f64 / MIB;
            }
        }
        now
    }

    fn processes(&self, device: Device) -> Vec<ProcessInfo> {
        let mut found = vec![ProcessInfo::default(); 32];
        // Others may start between one call and the next: each answer says how many there are.
        for _ in 0..4 {
            let mut count = found.len() as c_uint;
            // SAFETY: `count` is the number of structs that there is room for.
            match unsafe { (self.processes)(device, &mut count, found.as_mut_ptr()) } {
                SUCCESS => {
                    found.truncate(count as usize);
                    return found;
                }
                INSUFFICIENT_SIZE => found.resize(count as usize + 8, ProcessInfo::default()),
                _ => break,
            }
        }
        vec![]
    }
}

impl Drop for Nvml {
    fn drop(&mut self) {
        // SAFETY: the library was initialised, and nothing of it is used after this.
        unsafe {
            (self.shutdown)();
            libc::dlclose(self.library);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// What nvml.h declares, and two devices: one with more processes than fit at first, one that hides a size.
    const FAKE: &str = r#"
        typedef struct { unsigned int pid; unsigned long long usedGpuMemory; unsigned int gpuInstanceId, computeInstanceId; } nvmlProcessInfo_t;
        typedef struct { unsigned long long total, free, used; } nvmlMemory_t;
        static int devices[2] = {0, 1};
        int nvmlInit_v2(void) { return 0; }
        int nvmlShutdown(void) { return 0; }
        int nvmlDeviceGetCount_v2(unsigned int *n) { *n = COUNT; return 0; }
        int nvmlDeviceGetHandleByIndex_v2(unsigned int i, void **d) { *d = &devices[i]; return 0; }
        int nvmlDeviceGetMemoryInfo(void *d, nvmlMemory_t *m) { m->total = 80ull << 30; m->used = 3ull << 20; m->free = m->total - m->used; return 0; }
        int nvmlDeviceGetComputeRunningProcesses_v3(void *d, unsigned int *n, nvmlProcessInfo_t *p) {
            unsigned int have = *(int *)d == 0 ? 40 : 2;
            if (*n < have) { *n = have; return 7; }
            for (unsigned int i = 0; i < have; i++) { p[i].pid = 100 + i; p[i].usedGpuMemory = (unsigned long long)(i + 1) << 20; p[i].gpuInstanceId = p[i].computeInstanceId = 0xffffffff; }
            if (have == 2) p[1].usedGpuMemory = ~0ull;
            *n = have;
            return 0;
        }
    "#;

    fn fake(dir: &std::path::Path, devices: u32) -> Option<std::ffi::CString> {
        let (source, library) = (dir.join("fake.c"), dir.join(format!("fake{devices}.so")));
        std::fs::write(&source, FAKE).unwrap();
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg(format!("-DCOUNT={devices}"));
        let built = cc.output().is_ok_and(|o| o.status.success());
        built.then(|| std::ffi::CString::new(library.to_str().unwrap()).unwrap())
    }

    #[test]
    fn processes_add_up_over_devices_and_what_is_absent_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Nvml::load_from(c"/no/such/library.so").is_none());
        let Some(library) = fake(dir.path(), 2) else {
            eprintln!("skipped: no C compiler");
            return;
        };
        let nvml = Nvml::load_from(&library).unwrap();
        for _ in 0..2 {
            let now = nvml.look();
            assert_eq!((now.by_pid.len(), now.by_pid[&100], now.by_pid[&101]), (40, 2.0, 2.0));
            assert_eq!((now.by_pid[&139], now.devices), (40.0, 6.0));
        }
        drop(nvml);
        assert!(Nvml::load_from(&fake(dir.path(), 0).unwrap()).is_none(), "a library and no device");
    }
}
