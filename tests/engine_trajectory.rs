//! Thirty steps of training with the fused kernels against thirty out of candle's plain operations, autograd and
//! AdamW, in f32: the same losses, and the same model at the end.

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{AdamW as PlainAdamW, Optimizer, ParamsAdamW};
use kto_eval::base::seed;
use kto_eval::data::Sequence;
use kto_eval::kernels::activation::{self, Activation};
use kto_eval::kernels::attention::{self, Shape, Tree};
use kto_eval::kernels::head::{self, Head};
use kto_eval::kernels::norm::{self, Kind};
use kto_eval::kernels::rope;
use kto_eval::model::{Decoder, DecoderConfig, Gradients, Packed, Size};
use kto_eval::objective::{ClassCounts, build};
use kto_eval::plan::{DpoSpec, Method, TrainSpec};
use kto_eval::train::{AdamW, Reference, ReferenceCache, StepInput, Unit, compute_step};
use rand::RngExt;

const STEPS: usize = 30;
const PAIRS: usize = 4;
const RATE: f64 = 1e-3;
const BETA: f64 = 0.1;
const SIZE: Size =
    Size { vocab: 90, hidden: 64, layers: 2, heads: 4, kv_heads: 2, intermediate: 96, context: 64 };
const DIM: usize = SIZE.hidden / SIZE.heads;

/// A Llama whose every operation is candle's.
struct Plain {
    vars: Vec<(String, Var)>,
}

impl Plain {
    fn of(decoder: &Decoder) -> Self {
        let var =
            |p: &kto_eval::model::Param| (p.pieces[0].name.clone(), Var::from_tensor(&p.tensor).unwrap());
        Self { vars: decoder.params().iter().map(var).collect() }
    }

    fn weight(&self, name: &str) -> &Tensor {
        let found = self.vars.iter().find(|(n, _)| n == name);
        found.unwrap_or_else(|| panic!("no {name}")).1.as_tensor()
    }

    fn norm(&self, x: &Tensor, name: &str) -> Tensor {
        norm::plain_forward(x, self.weight(name), None, Kind::Rms, 1e-5).unwrap()
    }

    fn project(&self, x: &Tensor, name: &str) -> Tensor {
        x.matmul(&self.weight(name).t().unwrap()).unwrap()
    }

    /// Σ log p of each sequence's completion, one sequence at a time.
    fn logps(&self, sequence: &Sequence) -> Tensor {
        let ids = Tensor::new(&*sequence.ids, &Device::Cpu).unwrap();
        let t = sequence.ids.len();
        let positions: Vec<u32> = (0..t as u32).collect();
        let frequencies: Vec<f64> = (0..DIM / 2).map(|i| 1e4f64.powf(-2.0 * i as f64 / DIM as f64)).collect();
        let table = self.weight("model.embed_tokens.weight");
        let angles = rope::angles(&positions, &frequencies, 1.0, table).unwrap();
        let trees = [Tree { root: 0..t, branches: vec![] }];
        let shape = Shape {
            heads: SIZE.heads,
            kv_heads: SIZE.kv_heads,
            head_dim: DIM,
            scale: 1.0 / (DIM as f64).sqrt(),
            window: None,
            softcap: None,
        };
        let mut x = table.index_select(&ids, 0).unwrap();
        for layer in 0..SIZE.layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
            let qkv = self.project(&self.norm(&x, &name("input_layernorm")), &name("self_attn.q_proj"));
            let qkv = rope::plain_turn(&qkv, &angles, SIZE.heads + SIZE.kv_heads, DIM, 1.0).unwrap();
            let out = attention::plain_forward(&qkv, &trees, &shape).unwrap();
            x = (x + self.project(&out, &name("self_attn.o_proj"))).unwrap();
            let up = self.project(&self.norm(&x, &name("post_attention_layernorm")), &name("mlp.gate_proj"));
            let act = activation::plain_forward(&up, Activation::Silu, true).unwrap();
            x = (x + self.project(&act, &name("mlp.down_proj"))).unwrap();
        }
        let hidden = self.norm(&x, "model.norm.weight");
        let reads: Vec<(u32, u32)> =
            (sequence.prompt_len..t).map(|at| (at as u32 - 1, sequence.ids[at])).collect();
        head::plain_forward(&hidden, Head { weight: table, softcap: None }, &reads)
            .unwrap()
            .sum_all()
            .unwrap()
    }

    /// Mean loss of the pairs: SFT's over the tokens of the chosen, or DPO's against the reference's sums.
    fn loss(&self, pairs: &[Unit], reference: Option<&[f64]>) -> Tensor {
        let sums: Vec<Tensor> = pairs.iter().flat_map(|p| &p.sequences).map(|s| self.logps(s)).collect();
        let sums = Tensor::stack(&sums, 0).unwrap();
        let Some(reference) = reference else {
            let tokens: usize = pairs.iter().flat_map(|p| &p.sequences).map(Sequence::completion_len).sum();
            return (sums.sum_all().unwrap().neg().unwrap() / tokens as f64).unwrap();
        };
        let reference = Tensor::new(reference, &Device::Cpu).unwrap().to_dtype(DType::F32).unwrap();
        let ratios = (sums - reference).unwrap().reshape((pairs.len(), 2)).unwrap();
        let side = |i: usize| ratios.narrow(1, i, 1).unwrap().flatten_all().unwrap();
        let margins = ((side(0) - side(1)).unwrap() * BETA).unwrap();
        (margins.neg().unwrap().exp().unwrap() + 1.0).unwrap().log().unwrap().mean_all().unwrap()
    }
}

/// Pairs of one step, or chosen completions alone.
fn units(step: usize, paired: bool) -> Vec<Unit> {
    let mut rng = seed::rng(step as u64, "test/trajectory");
    let mut tokens = |low, high| -> Vec<u32> {
        (0..rng.random_range(low..high)).map(|_| rng.random_range(0..SIZE.vocab as u32)).collect()
    };
    (0..PAIRS)
        .map(|i| {
            let prompt = tokens(5, 12);
            let mut completed = || Sequence {
                ids: prompt.iter().copied().chain(tokens(4, 15)).collect(),
                prompt_len: prompt.len(),
            };
            let sequences = if paired { vec![completed(), completed()] } else { vec![completed()] };
            Unit { id: i.to_string(), sequences, desirable: true }
        })
        .collect()
}

fn follow(method: &Method, paired: bool) {
    let config = DecoderConfig::llama(SIZE).unwrap();
    let mut policy = Decoder::random(config, 4, DType::F32, &Device::Cpu).unwrap();
    let reference = policy.duplicate().unwrap();
    let plain = Plain::of(&policy);
    let objective = build(method).unwrap();
    let cache = ReferenceCache::open("test", None);
    let mut optimizer = AdamW::new(&TrainSpec::default(), &policy).unwrap();
    let vars = plain.vars.iter().map(|(_, var)| var.clone()).collect();
    let params = ParamsAdamW { lr: RATE, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
    let mut plain_optimizer = PlainAdamW::new(vars, params).unwrap();
    let mut furthest = 0f64;
    for step in 0..STEPS {
        let units = units(step, paired);
        let input = StepInput {
            units: &units.iter().collect::<Vec<_>>(),
            mismatched: &[],
            reference: Some(Reference::new(&reference, &cache)),
            micro_tokens: 60,
            dropout: None,
            classes: ClassCounts { desirable: 1, undesirable: 1 },
            reward_shift: 0.0,
        };
        let mut gradients = Gradients::zeros(&policy).unwrap();
        let result = compute_step(&policy, objective.as_ref(), &input, &mut gradients).unwrap();
        optimizer.step(&mut policy, &gradients, RATE, 1.0).unwrap();

        let loss = plain.loss(&units, paired.then_some(&result.logps.reference));
        plain_optimizer.backward_step(&loss).unwrap();
        let loss = f64::from(loss.to_scalar::<f32>().unwrap());
        furthest = furthest.max((loss - result.loss).abs());
    }
    assert!(furthest < 1e-4, "{method:?}: losses differ by {furthest:e}");
    let mut moved = 0f64;
    for unit in units(STEPS, true) {
        for sequence in &unit.sequences {
            let fused: f64 = policy.logps(&Packed::of([sequence])).unwrap().iter().sum();
            let plain = f64::from(plain.logps(sequence).to_scalar::<f32>().unwrap());
            let before: f64 = reference.logps(&Packed::of([sequence])).unwrap().iter().sum();
            moved = moved.max((fused - before).abs());
            let off = (fused - plain).abs() / plain.abs();
            assert!(off < 1e-4, "{method:?}: {fused} against {plain} after {STEPS} steps");
        }
    }
    assert!(moved > 0.1, "{method:?}: no log-prob moved by more than {moved}: nothing was learned");
}

#[test]
fn sft_follows_the_plain_path() {
    follow(&Method::Sft, false);
}

#[test]
fn dpo_follows_the_plain_path() {
    follow(&Method::Dpo(DpoSpec { beta: BETA }), true);
}
