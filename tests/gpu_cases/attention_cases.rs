//! Attention over packed trees and over caches.

use super::Numbers;
use candle_core::DType;
use kto_eval::kernels::attention::{self, Cached, Shape, Slot, Tree};

/// Roots and branches whose lengths fall on both sides of tiles of 16, 32 and 64 rows.
fn trees(lengths: &[&[usize]]) -> (Vec<Tree>, usize) {
    let mut at = 0;
    let mut take = |n: &usize| {
        at += n;
        at - n..at
    };
    let tree = |lengths: &&[usize]| {
        let mut ranges = lengths.iter().map(&mut take);
        Tree { root: ranges.next().unwrap(), branches: ranges.collect() }
    };
    let trees = lengths.iter().map(tree).collect();
    (trees, at)
}

fn attention_case(n: &Numbers, lengths: &[&[usize]], shape: Shape) {
    let (trees, t) = trees(lengths);
    let ((qkv, qkv64), (dout, dout64)) =
        (n.random("qkv", &[t, shape.width()]), n.random("dout", &[t, shape.heads * shape.head_dim]));
    let (out, lse) = attention::forward(&qkv, &trees, &shape).unwrap();
    let (out64, lse64) = attention::forward(&qkv64, &trees, &shape).unwrap();
    let what = format!("{lengths:?} {shape:?}");
    n.close(&format!("out of {what}"), &out, &out64, 2e-5);
    n.close(&format!("lse of {what}"), &lse, &lse64, 2e-5);
    let found = attention::backward(&dout, &qkv, &out, &lse, &trees, &shape).unwrap();
    let wanted = attention::backward(&dout64, &qkv64, &out64, &lse64, &trees, &shape).unwrap();
    // Probabilities and their gradients are rounded once more on their way into bf16 products.
    n.close(&format!("dqkv of {what}"), &found, &wanted, if n.dtype == DType::BF16 { 0.02 } else { 5e-5 });
}

fn shape(heads: usize, kv_heads: usize, head_dim: usize) -> Shape {
    let scale = 1.0 / (head_dim as f64).sqrt();
    Shape { heads, kv_heads, head_dim, scale, window: None, softcap: None }
}

pub fn attention_over_trees(n: &Numbers) {
    attention_case(n, &[&[1]], shape(1, 1, 16));
    attention_case(n, &[&[5, 3, 4], &[40]], shape(4, 2, 16));
    attention_case(n, &[&[70, 33, 1, 66], &[17], &[64]], shape(2, 1, 16));
    attention_case(n, &[&[130], &[3, 64, 65]], shape(2, 2, 10));
}

pub fn attention_of_width_64(n: &Numbers) {
    attention_case(n, &[&[20, 9, 50], &[33]], shape(2, 1, 64));
    attention_case(n, &[&[129, 70]], shape(1, 1, 64));
}

pub fn attention_of_widths_that_pack_less(n: &Numbers) {
    attention_case(n, &[&[18, 30]], shape(1, 1, 20));
    attention_case(n, &[&[18, 30]], shape(2, 1, 40));
}

pub fn attention_of_width_80(n: &Numbers) {
    attention_case(n, &[&[18, 30]], shape(1, 1, 80));
}

pub fn attention_of_width_128(n: &Numbers) {
    attention_case(n, &[&[34, 3, 17]], shape(1, 1, 128));
}

pub fn attention_of_width_256(n: &Numbers) {
    attention_case(n, &[&[18, 30]], shape(1, 1, 256));
}

pub fn attention_with_windows_and_softcaps(n: &Numbers) {
    for (window, softcap) in [
        (Some(1), None),
        (Some(24), None),
        (Some(70), Some(3.0)),
        (Some(usize::MAX), None),
        (None, Some(2.0)),
    ] {
        attention_case(n, &[&[90, 40, 75], &[30]], Shape { window, softcap, ..shape(2, 1, 16) });
    }
}

pub fn cached_attention(n: &Numbers) {
    for (window, softcap) in [(None, None), (Some(5), None), (None, Some(2.0))] {
        let shape = Shape { window, softcap, ..shape(4, 2, 40) };
        let (mut slots, mut slots64): (Vec<Slot>, Vec<Slot>) = (vec![None; 3], vec![None; 3]);
        // Prompts, then single tokens, then more than one after a past.
        let steps: [&[(usize, usize, usize)]; 4] =
            [&[(0, 9, 0), (2, 4, 0)], &[(2, 1, 4), (0, 1, 9)], &[(0, 3, 10), (2, 1, 5)], &[(1, 1, 0)]];
        for (index, step) in steps.iter().enumerate() {
            let mut row = 0;
            let entry = |&(slot, len, past): &(usize, usize, usize)| {
                row += len;
                Cached { slot, row: row - len, len, past }
            };
            let entries: Vec<Cached> = step.iter().map(entry).collect();
            let rows = entries.iter().map(|e| e.len).sum();
            let (qkv, qkv64) = n.random(&format!("qkv {index}"), &[rows, shape.width()]);
            let found = attention::cached(&qkv, &mut slots, 16, &entries, &shape).unwrap();
            let wanted = attention::cached(&qkv64, &mut slots64, 16, &entries, &shape).unwrap();
            n.close(&format!("step {index}, window {window:?}"), &found, &wanted, 2e-5);
        }
    }
}
