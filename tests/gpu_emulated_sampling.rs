//! Generation and online training on the emulated GPU (see `gpu_emulated.rs`): the tokens that the CPU draws, and a
//! warm-up that leaves nothing to load to the first rollout.

mod emulation;
mod engine;

use candle_core::{DType, Device};
use emulation::Emulator;
use engine::{largest_difference, tiny};
use kto_eval::base::error::Result;
use kto_eval::data::{Sequence, TokenizedPair};
use kto_eval::kernels::cuda::Emulation;
use kto_eval::model::Decoder;
use kto_eval::model::generate::{Decoding, Generated, Request, Text, generate};
use kto_eval::plan::{Budget, Method, OnlineSpec, RewardFrom, TrainSpec};
use kto_eval::train::online::{Keeping, Kept, OnlineHooks, OnlineJob, Phase, train_online_in};
use kto_eval::train::{Ended, Job, TrainData};
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;

fn words(ids: &[u32]) -> Result<String> {
    Ok(ids.iter().map(|id| format!("{id} ")).collect())
}

const TEXT: Text<'_> = Text { decode: &words, eos: &[0] };

#[test]
fn sequences_are_those_of_the_cpu() {
    let Some(emulator) = Emulator::new().map(Rc::new) else { return };
    // The second and the third share a prompt, and with three slots some wait.
    let prompts: [&[u32]; 5] = [&[3, 5, 7], &[4, 4, 9, 1], &[4, 4, 9, 1], &[8], &[2, 6]];
    let request = |(i, prompt): (usize, &&[u32])| Request { id: format!("r{i}"), prompt: prompt.to_vec() };
    let requests: Vec<Request> = prompts.iter().enumerate().map(request).collect();
    for family in ["llama", "gemma2"] {
        let decoder = Decoder::random(tiny(family), 7, DType::F32, &Device::Cpu).unwrap();
        for decoding in [
            Decoding { max_new_tokens: 8, ..Decoding::default() },
            Decoding { max_new_tokens: 8, temperature: 1.0, ..Decoding::default() },
            Decoding {
                max_new_tokens: 8,
                temperature: 0.8,
                top_k: 20,
                top_p: 0.9,
                repetition_penalty: 1.2,
                ..Decoding::default()
            },
        ] {
            let run = || generate(&decoder, TEXT, &requests, &decoding, 5, 3).unwrap();
            let wanted = run();
            let found = {
                let _emulation = Emulation::begin(emulator.clone());
                run()
            };
            let tokens = |g: &Generated| g.generations.iter().map(|g| g.tokens.clone()).collect::<Vec<_>>();
            assert_eq!(tokens(&found), tokens(&wanted), "{family}, {decoding:?}");
            let logps = |g: &Generated| g.generations.iter().map(|g| g.logp).collect::<Vec<_>>();
            let off = largest_difference(&logps(&found), &logps(&wanted));
            assert!(off < 1e-4, "{family}: log-probs off by {off}");
            emulator.check_zones();
        }
    }
    let launched = emulator.launched.borrow();
    for kernel in ["cached_attend", "sample_draw", "sample_penalise"] {
        assert!(launched.contains_key(kernel), "{kernel} did not run: {launched:?}");
    }
}

/// Looks at what has been loaded when rollouts are about to begin.
struct Looking {
    emulator: Rc<Emulator>,
    loaded: HashSet<&'static str>,
}

impl Looking {
    fn take(&mut self) -> HashSet<&'static str> {
        self.emulator.launched.borrow_mut().drain().map(|(kernel, _)| kernel).collect()
    }
}

impl Keeping for Looking {
    fn reward_model(&mut self, _: &Decoder, _: &Job<'_>) -> Result<Kept> {
        Ok(Kept::default())
    }
    fn rollouts(&mut self, _: u64, _: &str) -> Result<Kept> {
        self.loaded = self.take();
        Ok(Kept::default())
    }
}

#[test]
fn a_rollout_launches_what_its_warm_up_has_loaded() {
    let Some(emulator) = Emulator::new().map(Rc::new) else { return };
    let _emulation = Emulation::begin(emulator.clone());
    let sequence = |ids: &[u32]| Sequence { ids: ids.into(), prompt_len: 2 };
    let pairs = [TokenizedPair {
        id: "p".to_owned(),
        subset: String::new(),
        chosen: sequence(&[3, 5, 7, 0]),
        rejected: sequence(&[3, 5, 2, 0]),
    }];
    let online =
        || OnlineSpec { reward: RewardFrom::Gold, samples: 4, max_new_tokens: 4, ..OnlineSpec::default() };
    for method in [Method::Rloo(online()), Method::Ppo(online()), Method::OnlineDpo(online())] {
        let mut policy = Decoder::random(tiny("llama"), 7, DType::BF16, &Device::Cpu).unwrap();
        let reference = policy.duplicate().unwrap();
        let spec = TrainSpec { batch_size: 8, micro_tokens: 64, ..TrainSpec::default() };
        let job = OnlineJob {
            method: &method,
            spec: &spec,
            budget: Budget::Steps(2),
            seed: 5,
            max_length: 32,
            data: TrainData::Paired(&pairs),
            reference: &reference,
            text: TEXT,
            pad: 0,
            gold: Some(|_, text| text.len() as f64 + text.bytes().map(f64::from).sum::<f64>() / 1e4),
            keep_bytes: 0,
        };
        let mut sampled = 0;
        let mut hooks = OnlineHooks {
            step: &mut |_| Ok(()),
            rollout: &mut |metrics| {
                sampled += metrics.sampled_tokens;
                Ok(())
            },
            progress: &mut |_| (),
            abort: &AtomicBool::new(false),
        };
        let mut looking = Looking { emulator: emulator.clone(), loaded: HashSet::new() };
        looking.take();
        let outcome = train_online_in(&mut policy, &job, &mut hooks, &mut looking).unwrap();
        assert_eq!((outcome.train.ended, outcome.train.ledger.steps), (Ended::Done, 2), "{}", method.name());
        let counted = outcome.phases.get(Phase::Sampling).forward_tokens;
        assert_eq!(counted, sampled, "{}: the warm-up is counted", method.name());
        let loaded = std::mem::take(&mut looking.loaded);
        let launched = looking.take();
        assert!(launched.contains("cached_attend") && launched.contains("adamw_step"), "{launched:?}");
        let missing: Vec<_> = launched.difference(&loaded).collect();
        assert!(missing.is_empty(), "{}: {missing:?} were not loaded", method.name());
    }
}
