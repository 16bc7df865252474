//! A sample depends on its prompt, its id and the seed, not on who else is sampled, how many at once, or in
//! which order.

use candle_core::{DType, Device, Tensor};
use kto_eval::base::error::Result;
use kto_eval::data::Sequence;
use kto_eval::model::generate::{Advance, Decoding, Finish, Generated, Request, Text, generate};
use kto_eval::model::{Decoder, DecoderConfig, Packed, Size};

const VOCAB: usize = 97;
const EOS: u32 = 0;

fn decoder() -> Decoder {
    let size =
        Size { vocab: VOCAB, hidden: 64, layers: 2, heads: 4, kv_heads: 2, intermediate: 96, context: 64 };
    Decoder::random(DecoderConfig::llama(size).unwrap(), 3, DType::F32, &Device::Cpu).unwrap()
}

fn requests(n: usize) -> Vec<Request> {
    let prompt =
        |i: usize| (0..3 + i * 7 % 20).map(|j| (1 + (i * 31 + j * 17) % (VOCAB - 1)) as u32).collect();
    (0..n).map(|i| Request { id: format!("example-{i}"), prompt: prompt(i) }).collect()
}

fn words(ids: &[u32]) -> Result<String> {
    Ok(ids.iter().map(|i| format!(" w{i}")).collect())
}

fn run<M: Advance>(model: &M, requests: &[Request], decoding: &Decoding, slots: usize) -> Generated {
    generate(model, Text { decode: &words, eos: &[EOS] }, requests, decoding, 42, slots).unwrap()
}

#[test]
fn batch_size_and_order_do_not_change_a_sample() {
    let (model, requests) = (decoder(), requests(40));
    for decoding in [
        Decoding { max_new_tokens: 24, ..Decoding::default() },
        Decoding { max_new_tokens: 24, temperature: 1.0, ..Decoding::default() },
        Decoding {
            max_new_tokens: 24,
            temperature: 0.8,
            top_k: 30,
            top_p: 0.9,
            min_p: 0.02,
            repetition_penalty: 1.2,
            stop: vec!["w11 ".to_owned()],
            ..Decoding::default()
        },
    ] {
        let one = run(&model, &requests, &decoding, 1);
        for slots in [3, 16, 64] {
            assert_eq!(
                one.generations,
                run(&model, &requests, &decoding, slots).generations,
                "{slots} slots"
            );
        }
        let reversed: Vec<Request> = requests.iter().rev().cloned().collect();
        let mut backwards = run(&model, &reversed, &decoding, 16).generations;
        backwards.reverse();
        assert_eq!(one.generations, backwards);
        let alone = run(&model, &requests[7..8], &decoding, 16);
        assert_eq!(one.generations[7], alone.generations[0]);
    }
}

/// Whatever a sample was drawn from, its log-prob is the model's own.
#[test]
fn a_samples_log_prob_is_that_of_the_model_whatever_the_decoding() {
    let (model, requests) = (decoder(), requests(12));
    let plain = Decoding { max_new_tokens: 20, ..Decoding::default() };
    for decoding in [
        Decoding { temperature: 0.0, ..plain.clone() },
        Decoding { temperature: 1.0, ..plain.clone() },
        Decoding { temperature: 0.7, ..plain.clone() },
        Decoding { temperature: 1.0, top_k: 5, ..plain.clone() },
        Decoding { temperature: 1.0, repetition_penalty: 1.3, ..plain.clone() },
        Decoding { temperature: 0.7, top_k: 5, top_p: 0.9, repetition_penalty: 1.3, ..plain },
    ] {
        for sample in run(&model, &requests, &decoding, 5).generations {
            let ids = [sample.prompt.as_slice(), &sample.tokens].concat();
            let sequence = Sequence { ids: ids.into(), prompt_len: sample.prompt.len() };
            let wanted: f64 = model.logps(&Packed::of([&sequence])).unwrap().iter().sum();
            assert!((sample.logp - wanted).abs() < 1e-3, "{decoding:?}: {} against {wanted}", sample.logp);
        }
    }
}

#[test]
fn another_seed_or_id_is_another_draw() {
    let model = decoder();
    let decoding = Decoding { temperature: 1.0, max_new_tokens: 16, ..Decoding::default() };
    let same_prompt: Vec<Request> =
        (0..2).map(|i| Request { id: format!("{i}"), prompt: vec![5, 6, 7] }).collect();
    let out = run(&model, &same_prompt, &decoding, 2).generations;
    assert_ne!(out[0].tokens, out[1].tokens);
    let text = Text { decode: &words, eos: &[EOS] };
    let other = generate(&model, text, &same_prompt, &decoding, 43, 2).unwrap().generations;
    assert_ne!(out[0].tokens, other[0].tokens);
}

#[test]
fn what_cannot_run_is_refused_and_the_rest_runs() {
    let (model, mut requests) = (decoder(), requests(3));
    requests.push(Request { id: "too-long".to_owned(), prompt: vec![1; 64] });
    requests.push(Request { id: "empty".to_owned(), prompt: vec![] });
    requests.push(Request { id: "almost".to_owned(), prompt: vec![1; 60] });
    let decoding = Decoding { max_new_tokens: 10, temperature: 1.0, ..Decoding::default() };
    let out = run(&model, &requests, &decoding, 2);
    assert_eq!(out.generations.len(), 4);
    let reasons: Vec<&str> = out.refused.iter().map(|r| r.reason.as_str()).collect();
    assert_eq!(
        reasons,
        ["the prompt has 64 tokens and the model's context holds 64", "the prompt has no token"]
    );
    let almost = &out.generations[3];
    assert!(almost.tokens.len() <= 4, "the context ends at 64 tokens");
    let text = Text { decode: &words, eos: &[EOS] };
    let twice = [requests[0].clone(), requests[0].clone()];
    let error = generate(&model, text, &twice, &decoding, 0, 2).unwrap_err().to_string();
    assert!(error.contains("duplicate example id `example-0`"), "{error}");
    assert!(generate(&model, text, &requests, &decoding, 0, 0).is_err());
}

/// A model that counts: it says prompt[0] tokens `1` and then EOS; it records how many rows each step had.
struct Counting(std::cell::RefCell<Vec<usize>>);

impl Advance for Counting {
    type Cache = Vec<Vec<u32>>;
    fn context(&self) -> usize {
        100
    }
    fn new_cache(&self, slots: usize, _: usize) -> Result<Self::Cache> {
        Ok(vec![Vec::new(); slots])
    }
    fn step(&self, cache: &mut Self::Cache, inputs: &[(usize, &[u32])]) -> Result<Tensor> {
        self.0.borrow_mut().push(inputs.len());
        let mut logits = Vec::new();
        for (slot, ids) in inputs {
            cache[*slot].extend_from_slice(ids);
            let said = cache[*slot].len() - 1;
            let ends = said >= cache[*slot][0] as usize;
            logits.extend([if ends { 1.0f32 } else { 0.0 }, 0.5, 0.0]);
        }
        Ok(Tensor::from_vec(logits, (inputs.len(), 3), &Device::Cpu)?)
    }
    fn fork(&self, cache: &mut Self::Cache, from: usize, to: usize) -> Result<()> {
        cache[to] = cache[from].clone();
        Ok(())
    }
    fn clear(&self, cache: &mut Self::Cache, slot: usize) {
        cache[slot].clear();
    }
    fn cache_bytes(&self, slots: usize, capacity: usize) -> usize {
        slots * capacity
    }
}

#[test]
fn a_finished_sequence_makes_room_for_the_next_at_once() {
    let model = Counting(Default::default());
    // One long sequence and six short ones in two slots: the short ones take turns beside the long one.
    let lengths = [12u32, 1, 1, 1, 1, 1, 1];
    let requests: Vec<Request> =
        lengths.iter().enumerate().map(|(i, n)| Request { id: format!("{i}"), prompt: vec![*n] }).collect();
    let decoding = Decoding { max_new_tokens: 20, ..Decoding::default() };
    let out = run(&model, &requests, &decoding, 2);
    for (generation, n) in out.generations.iter().zip(lengths) {
        assert_eq!(generation.tokens.len(), n as usize + 1, "n tokens and EOS");
        assert_eq!((generation.finish, generation.text.matches("w1").count()), (Finish::Eos, n as usize));
    }
    let rows = model.0.borrow().clone();
    assert_eq!(
        rows,
        [vec![2; 12], vec![1]].concat(),
        "12 steps are full; waiting for whole batches takes 19"
    );
    assert_eq!((out.steps, out.new_tokens, out.prompt_tokens), (13, 25, 7));

    let stopping = Decoding { max_new_tokens: 20, stop: vec![" w1 w1 w1".to_owned()], ..Decoding::default() };
    let out = run(&model, &requests[..1], &stopping, 1);
    let Some(stopped) = out.generations.first() else { panic!("one request, one sample") };
    assert_eq!((stopped.finish, stopped.text.as_str(), stopped.tokens.len()), (Finish::Stop, "", 3));
    let cut = run(&model, &requests[..1], &Decoding { max_new_tokens: 5, ..Decoding::default() }, 1);
    assert_eq!((cut.generations[0].finish, cut.generations[0].tokens.len()), (Finish::Length, 5));
}

#[test]
fn newcomers_with_the_same_prompt_compute_it_once_and_draw_what_they_draw_alone() {
    let model = decoder();
    let decoding = Decoding { temperature: 1.0, max_new_tokens: 16, ..Decoding::default() };
    // Four samples of each of three prompts, as a rollout asks for them.
    let prompts = [vec![5, 6, 7], vec![9; 11], vec![3]];
    let request = |(i, p): (usize, &Vec<u32>)| {
        let p = p.clone();
        (0..4).map(move |j| Request { id: format!("{i}#{j}"), prompt: p.clone() })
    };
    let requests: Vec<Request> = prompts.iter().enumerate().flat_map(request).collect();
    let all = run(&model, &requests, &decoding, 12);
    assert_eq!(all.prompt_tokens, 3 + 11 + 1);
    for (i, request) in requests.iter().enumerate() {
        let alone = run(&model, std::slice::from_ref(request), &decoding, 1);
        assert_eq!(all.generations[i], alone.generations[0], "{}", request.id);
    }
    // With five slots a group begins in pieces.
    assert_eq!(run(&model, &requests, &decoding, 5).generations, all.generations);
}
