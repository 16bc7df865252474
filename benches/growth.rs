//! How the time of a forward and backward pass grows with sequence length, model width and vocabulary.
//!
//! `cargo bench --bench growth`. Elements are tokens, so criterion's throughput is tokens/s; 2,048 tokens a pass,
//! half of them read.

use candle_core::{DType, Device};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kto_eval::data::Sequence;
use kto_eval::model::{Decoder, DecoderConfig, Gradients, Packed, Size};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TOKENS: usize = 2048;
const BASE: Size =
    Size { vocab: 4096, hidden: 256, layers: 4, heads: 4, kv_heads: 2, intermediate: 688, context: TOKENS };

fn pass(c: &mut Criterion, group: &str, parameter: usize, size: Size, len: usize) {
    let config = DecoderConfig::llama(size).unwrap();
    let decoder = Decoder::random(config, 1, DType::F32, &Device::Cpu).unwrap();
    let sequence = |i: usize| Sequence {
        ids: (0..len).map(|j| ((i * 131 + j * 17) % size.vocab) as u32).collect::<Vec<_>>().into(),
        prompt_len: len / 2,
    };
    let sequences: Vec<Sequence> = (0..TOKENS / len).map(sequence).collect();
    let packed = Packed::of(&sequences);
    let mut gradients = Gradients::zeros(&decoder).unwrap();
    let mut group = c.benchmark_group(group);
    group.throughput(Throughput::Elements(TOKENS as u64));
    group.bench_function(BenchmarkId::from_parameter(parameter), |b| {
        b.iter(|| {
            let (logps, tape) = decoder.forward(&packed).unwrap();
            decoder.backward(tape, &vec![0.01; logps.len()], &mut gradients).unwrap();
        })
    });
}

fn growth(c: &mut Criterion) {
    for len in [64, 128, 256, 512, 1024, 2048] {
        pass(c, "sequence_length", len, BASE, len);
    }
    for hidden in [128, 256, 512, 768] {
        pass(c, "width", hidden, Size { hidden, intermediate: hidden * 43 / 16, ..BASE }, 256);
    }
    for vocab in [1024, 4096, 16_384, 50_304] {
        pass(c, "vocabulary", vocab, Size { vocab, ..BASE }, 256);
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).measurement_time(std::time::Duration::from_secs(3));
    targets = growth
}
criterion_main!(benches);
