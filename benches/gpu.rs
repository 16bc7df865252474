//! Speed on an NVIDIA GPU at the shape of a 1 B Llama (Llama 3.2 1B), sequences of 1024, bf16: training steps with
//! their share of the card's peak (model FLOP utilisation), sampling, and each kernel's time and rate.
//!
//! `cargo bench --features cuda --bench gpu`; prints Markdown. The peak is that of a product of 8192 × 8192 in bf16,
//! measured here, and beside it the data sheet's for an H100 or H200 (989 TFLOP/s dense).

#[cfg(not(feature = "cuda"))]
fn main() {
    eprintln!("this bench needs --features cuda and an NVIDIA GPU");
}

#[cfg(feature = "cuda")]
fn main() -> kto_eval::base::error::Result<()> {
    gpu::main()
}

#[cfg(feature = "cuda")]
mod gpu {
    use candle_core::{DType, Device, Tensor};
    use kto_eval::base::error::{Result, ensure};
    use kto_eval::base::seed;
    use kto_eval::data::Sequence;
    use kto_eval::kernels::attention::{self, Shape, Tree};
    use kto_eval::kernels::cuda::device::portable as portably;
    use kto_eval::kernels::norm::{self, Kind, Norm, NormGrads};
    use kto_eval::kernels::{activation, head, linear};
    use kto_eval::model::generate::{Chooser, Decoding, Request, Text, choose, generate};
    use kto_eval::model::{Decoder, DecoderConfig, Gradients, Packed, Size};
    use kto_eval::plan::TrainSpec;
    use kto_eval::train::AdamW;
    use rand_chacha::rand_core::Rng;
    use std::time::Instant;

    const LLAMA: Size = Size {
        vocab: 128_256,
        hidden: 2048,
        layers: 16,
        heads: 32,
        kv_heads: 8,
        intermediate: 8192,
        context: 2048,
    };
    const LENGTH: usize = 1024;
    /// FLOP/s of dense bf16 products by NVIDIA's data sheet for the H100 SXM and the H200.
    const DATA_SHEET: f64 = 989e12;

    /// Median seconds of nine runs after three that warm up.
    fn seconds(device: &Device, mut f: impl FnMut() -> Result<()>) -> Result<f64> {
        let mut times = Vec::new();
        for i in 0..12 {
            device.synchronize()?;
            let start = Instant::now();
            f()?;
            device.synchronize()?;
            if i >= 3 {
                times.push(start.elapsed().as_secs_f64());
            }
        }
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    }

    fn peak(device: &Device) -> Result<f64> {
        let n = 8192;
        let a = Tensor::randn(0f32, 1.0, (n, n), device)?.to_dtype(DType::BF16)?;
        let time = seconds(device, || linear::forward(&a, &a, None).map(drop))?;
        Ok(2.0 * (n as f64).powi(3) / time)
    }

    /// A number of NaN is fast, too.
    fn finite(what: &str, x: &Tensor) -> Result<()> {
        let sum: f32 = x.to_dtype(DType::F32)?.abs()?.sum_all()?.to_scalar()?;
        ensure!(sum.is_finite() && sum > 0.0, "{what}: the sum of its absolute values is {sum}");
        Ok(())
    }

    /// `count` sequences of `LENGTH`, or pairs with a shared prompt of half of it.
    fn batch(count: usize, paired: bool) -> Packed {
        let mut rng = seed::rng(5, "gpu bench");
        let mut draw = |n: usize| (0..n).map(|_| rng.next_u32() % LLAMA.vocab as u32).collect::<Vec<_>>();
        let mut packed = Packed::default();
        for _ in 0..count {
            let (prompt, completions) = if paired { (LENGTH / 2, 2) } else { (1, 1) };
            let head = draw(prompt);
            let mut whole = || Sequence {
                ids: [head.clone(), draw(LENGTH - prompt)].concat().into(),
                prompt_len: prompt,
            };
            let group: Vec<Sequence> = (0..completions).map(|_| whole()).collect();
            packed.push_group(&group.iter().collect::<Vec<_>>());
        }
        packed
    }

    pub fn main() -> Result<()> {
        let device = kto_eval::kernels::cuda::device::open(0)?;
        let peak = peak(&device)?;
        println!("Peak of a bf16 product measured here: {:.0} TFLOP/s.\n", peak / 1e12);
        kernels(&device)?;
        steps(&device, peak)
    }

    fn steps(device: &Device, peak: f64) -> Result<()> {
        println!(
            "| training step, bf16 | tokens | ms | tokens/s | TFLOP/s | of the measured peak | of 989 TFLOP/s | loss, first and last |"
        );
        println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
        let mut policy = Decoder::random(DecoderConfig::llama(LLAMA)?, 1, DType::BF16, device)?;
        let mut grads = Gradients::zeros(&policy)?;
        let mut optimizer = AdamW::new(&TrainSpec::default(), &policy)?;
        for (name, packed, micros) in [
            ("8 sequences of 1024, all tokens read", batch(8, false), 1),
            ("the same twice, two micro-batches a step", batch(8, false), 2),
            ("8 pairs of 512 + 512, prompt computed once", batch(8, true), 1),
        ] {
            let (flops, tokens) = (3.0 * policy.flops(&packed) * micros as f64, micros * packed.ids.len());
            let mut losses = Vec::new();
            let time = seconds(device, || {
                grads.restart_()?;
                let mut loss = 0.0;
                for _ in 0..micros {
                    let (logps, tape) = policy.forward(&packed)?;
                    let n = (micros * logps.len()) as f64;
                    policy.backward(tape, &vec![-1.0 / n; logps.len()], &mut grads)?;
                    loss -= logps.iter().sum::<f64>() / n;
                }
                let norm = grads.global_norm()?;
                ensure!(loss.is_finite() && norm.is_finite(), "{name}: loss {loss}, gradient norm {norm}");
                losses.push(loss);
                optimizer.step(&mut policy, &grads, 1e-6, (1.0 / norm).min(1.0))
            })?;
            println!(
                "| {name} | {tokens} | {:.1} | {:.0} | {:.0} | {:.1} % | {:.1} % | {:.4}, {:.4} |",
                time * 1e3,
                tokens as f64 / time,
                flops / time / 1e12,
                100.0 * flops / time / peak,
                100.0 * flops / time / DATA_SHEET,
                losses.first().copied().unwrap_or(f64::NAN),
                losses.last().copied().unwrap_or(f64::NAN)
            );
        }
        drop((grads, optimizer));
        generation(&policy)
    }

    /// One kernel: what it does, its seconds, and its work in FLOPs or bytes.
    fn row(name: &str, time: f64, flops: f64, bytes: f64) {
        let rate = if flops > 0.0 {
            format!("{:.0} TFLOP/s", flops / time / 1e12)
        } else {
            format!("{:.2} TB/s", bytes / time / 1e12)
        };
        println!("| {name} | {:.3} | {rate} |", time * 1e3);
    }

    fn kernels(device: &Device) -> Result<()> {
        println!("| kernel, 8192 tokens, bf16 | ms | rate |\n| --- | --- | --- |");
        let (t, c, f) = (8 * LENGTH, LLAMA.hidden, LLAMA.intermediate);
        let random = |a: usize, b: usize| -> Result<Tensor> {
            Ok(Tensor::randn(0f32, 1.0, (a, b), device)?.to_dtype(DType::BF16)?)
        };
        let d = c / LLAMA.heads;
        let shape = Shape {
            heads: LLAMA.heads,
            kv_heads: LLAMA.kv_heads,
            head_dim: d,
            scale: 1.0 / (d as f64).sqrt(),
            window: None,
            softcap: None,
        };
        let tree = |i: usize| Tree { root: i * LENGTH..(i + 1) * LENGTH, branches: Vec::new() };
        let trees: Vec<Tree> = (0..8).map(tree).collect();
        let (qkv, dout) = (random(t, shape.width())?, random(t, c)?);
        let visible = (t * (LENGTH + 1) / 2) as f64;
        let flops = 4.0 * visible * c as f64;
        for (portable, how) in [(false, ""), (true, ", without ldmatrix and cvt")] {
            portably(portable);
            let (out, lse) = attention::forward(&qkv, &trees, &shape)?;
            finite("attention's output", &out)?;
            let time = seconds(device, || attention::forward(&qkv, &trees, &shape).map(drop))?;
            row(&format!("attention, forward{how}"), time, flops, 0.0);
            let back = || attention::backward(&dout, &qkv, &out, &lse, &trees, &shape);
            finite("attention's gradient", &back()?)?;
            row(
                &format!("attention, backward{how}"),
                seconds(device, || back().map(drop))?,
                2.5 * flops,
                0.0,
            );
        }
        portably(false);

        let (x, w) = (random(t, c)?, random(1, c)?.flatten_all()?);
        let norm = Norm { kind: Kind::Rms, eps: 1e-5, weight: &w, bias: None };
        let size = (2 * t * c) as f64;
        row("RMSNorm, forward", seconds(device, || norm::forward(&x, norm).map(drop))?, 0.0, 2.0 * size);
        let mut dw = Tensor::zeros(c, DType::F32, device)?;
        let time = seconds(device, || {
            let grads = NormGrads { weight: &mut dw, bias: None };
            norm::backward(&dout, &x, norm, grads, None).map(drop)
        })?;
        row("RMSNorm, backward", time, 0.0, 5.0 * size);

        let (up, dy) = (random(t, 2 * f)?, random(t, f)?);
        let (act, size) = (activation::Activation::Silu, (2 * t * f) as f64);
        row(
            "SwiGLU, forward",
            seconds(device, || activation::forward(&up, act, true).map(drop))?,
            0.0,
            3.0 * size,
        );
        let time = seconds(device, || activation::backward(dy.clone(), up.clone(), act, true).map(drop))?;
        row("SwiGLU, backward", time, 0.0, 6.0 * size);

        let weight = random(LLAMA.vocab, c)?;
        let head = head::Head { weight: &weight, softcap: None };
        let targets: Vec<head::Target> = (0..t as u32).map(|r| (r, r)).collect();
        let mut dw = Tensor::zeros((LLAMA.vocab, c), DType::F32, device)?;
        let flops = 2.0 * (t * c) as f64 * LLAMA.vocab as f64;
        let time = seconds(device, || {
            let (logps, saved) = head::forward(&x, head, &targets, true)?;
            head::backward(&vec![0.1; logps.len()], &x, head, &targets, saved, Some(&mut dw)).map(drop)
        })?;
        finite("the head's gradient", &dw)?;
        row("vocabulary head, forward and backward", time, 3.0 * flops, 0.0);
        drop((dw, weight));
        draws(device)?;
        println!();
        Ok(())
    }

    const SEQUENCES: usize = 64;

    fn decodings() -> [(&'static str, Decoding); 3] {
        let plain = || Decoding { max_new_tokens: 65, temperature: 1.0, ..Decoding::default() };
        [
            ("greedy", Decoding { temperature: 0.0, ..plain() }),
            ("temperature 1", plain()),
            ("top-k 50, top-p 0.9", Decoding { top_k: 50, top_p: 0.9, ..plain() }),
        ]
    }

    /// A token for each of some sequences.
    fn draws(device: &Device) -> Result<()> {
        let logits = Tensor::randn(0f32, 3.0, (SEQUENCES, LLAMA.vocab), device)?;
        let mut rngs: Vec<_> = (0..SEQUENCES as u64).map(|i| seed::rng(i, "gpu bench")).collect();
        for (name, decoding) in decodings() {
            let time = seconds(device, || {
                let chooser = |(row, rng)| Chooser { row, seen: &[], rng };
                let mut choosers: Vec<Chooser<'_>> = rngs.iter_mut().enumerate().map(chooser).collect();
                choose(&logits, &mut choosers, &decoding).map(drop)
            })?;
            let bytes = (4 * SEQUENCES * LLAMA.vocab) as f64;
            row(&format!("drawing {SEQUENCES} tokens from f32 logits, {name}"), time, 0.0, bytes);
        }
        Ok(())
    }

    /// Samples of 64 tokens after one each; the prompts' pass is that of the first, and left out.
    fn generation(policy: &Decoder) -> Result<()> {
        println!("\n| 64 sequences, prompts of 128 | ms a step | tokens/s |\n| --- | --- | --- |");
        let prompt = |i: u32| (0..128).map(|j| (i * 7919 + j * 104_729) % LLAMA.vocab as u32).collect();
        let request = |i| Request { id: format!("{i}"), prompt: prompt(i) };
        let requests: Vec<Request> = (0..SEQUENCES as u32).map(request).collect();
        let text = Text { decode: &|_| Ok(String::new()), eos: &[] };
        for (name, decoding) in decodings() {
            let run = |tokens: usize| -> Result<f64> {
                let decoding = Decoding { max_new_tokens: tokens, ..decoding.clone() };
                let start = Instant::now();
                let made = generate(policy, text, &requests, &decoding, 1, SEQUENCES)?;
                ensure!(made.steps == tokens, "{} steps for {tokens} tokens", made.steps);
                Ok(start.elapsed().as_secs_f64())
            };
            let tokens = decoding.max_new_tokens;
            run(2)?;
            let step = (run(tokens)? - run(1)?) / (tokens - 1) as f64;
            println!("| {name} | {:.2} | {:.0} |", step * 1e3, SEQUENCES as f64 / step);
        }
        Ok(())
    }
}
