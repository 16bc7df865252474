//! NVRTC compiles every kernel for Hopper; it needs libnvrtc, and no GPU.
#![cfg(feature = "cuda")]

use kto_eval::kernels::cuda::{device::compile, variants};

/// Compute capability of the H100 and H200.
const HOPPER: i32 = 90;

#[test]
fn every_kernel_compiles_for_hopper() {
    let all = variants();
    assert!(all.len() > 40, "{} variants only", all.len());
    let mut failed = vec![];
    for kernel in all {
        match compile(&kernel, HOPPER) {
            Ok(ptx) => assert!(ptx.contains(kernel.function), "{} has no {}", kernel.key(), kernel.function),
            Err(e) => failed.push(format!("{e:#}")),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn bf16_attention_goes_through_the_tensor_cores() {
    for kernel in variants().iter().filter(|k| k.source.name.starts_with("attention")) {
        let bf16 = kernel.defines.contains(&("BF16", 1));
        let ptx = compile(kernel, HOPPER).unwrap();
        for instruction in ["mma.sync.aligned.m16n8k16", "ldmatrix.sync", "cvt.rn.bf16x2.f32"] {
            assert_eq!(ptx.contains(instruction), bf16, "{instruction} in {}", kernel.key());
        }
    }
}
