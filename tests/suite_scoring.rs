//! Whole suites on a real decoder in the planted-truth world.

use std::cell::RefCell;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device};
use kto_eval::base::error::render;
use kto_eval::data::world::World;
use kto_eval::data::{Dataset, PreferencePair, Sequence, Tokenizer};
use kto_eval::model::{Decoder, DecoderConfig, Packed, Size};
use kto_eval::plan::{DataFormat, DataSpec, WorldSpec};
use kto_eval::suite::{ALL, Metric, OpponentKind, ScoreContext, ScoredSuite, Suite, find, score};

struct Setting {
    spec: DataSpec,
    world: World,
    heldout: Dataset,
    tokenizer: Tokenizer,
    policy: Decoder,
    reference: Decoder,
}

fn setting() -> Setting {
    let world_spec = WorldSpec { seed: 1, train_pairs: 8, heldout_pairs: 60, temperature: 0.3, flip: 0.05 };
    let spec = DataSpec {
        source: "world".to_owned(),
        revision: String::new(),
        config: String::new(),
        split: "train".to_owned(),
        format: DataFormat::Auto,
        max_length: 128,
        max_examples: 0,
        world: world_spec,
        ..DataSpec::default()
    };
    let world = World::new(&spec.world).unwrap();
    let dir = tempfile::tempdir().unwrap();
    world.write_tokenizer(dir.path()).unwrap();
    let tokenizer = Tokenizer::load(dir.path()).unwrap();
    let model = |seed| {
        let vocab = world.vocab_size();
        let size =
            Size { vocab, hidden: 32, layers: 2, heads: 2, kv_heads: 2, intermediate: 48, context: 96 };
        Decoder::random(DecoderConfig::llama(size).unwrap(), seed, DType::F32, &Device::Cpu).unwrap()
    };
    let heldout = Dataset::Paired(world.heldout_pairs());
    Setting { spec, heldout, tokenizer, policy: model(5), reference: model(6), world }
}

fn logp(model: &Decoder, sequence: &Sequence) -> f64 {
    model.logps(&Packed::of([sequence])).unwrap().iter().sum()
}

impl Setting {
    fn score(
        &self,
        policy: &Decoder,
        base: Option<&ScoredSuite>,
        suite: &Suite,
    ) -> anyhow::Result<ScoredSuite> {
        let mut reference = |s: &[Sequence]| Ok(s.iter().map(|s| logp(&self.reference, s)).collect());
        let mut ctx = ScoreContext {
            policy,
            reference: Some(&mut reference),
            tokenizer: &self.tokenizer,
            data: &self.spec,
            heldout: &self.heldout,
            base,
            seed: 9,
            max_examples: 0,
            reserve: 0,
            beta: 0.1,
            slots: 8,
        };
        score(&mut ctx, suite)
    }
}

fn all(scored: &ScoredSuite, metric: Metric) -> f64 {
    scored.overall(metric).unwrap_or_else(|| panic!("no {}", metric.name())).value
}

#[test]
fn preference_scores_are_those_of_a_plain_loop() {
    let s = setting();
    let suite = find("heldout", "preference").unwrap();
    let scored = s.score(&s.policy, None, &suite).unwrap();
    let Dataset::Paired(pairs) = &s.heldout else { panic!("pairs") };
    let (mut accuracy, mut margin, mut bits, mut bytes) = (0.0, 0.0, 0.0, 0.0);
    for pair in pairs {
        let side = |completion: &str| {
            let prompt = s.tokenizer.encode(&pair.prompt).unwrap();
            let mut ids = s.tokenizer.encode(&format!("{}{completion}", pair.prompt)).unwrap();
            ids.push(s.tokenizer.eos());
            Sequence { ids: ids.into(), prompt_len: prompt.len() }
        };
        let (chosen, rejected) = (side(&pair.chosen), side(&pair.rejected));
        let ratio = |x| logp(&s.policy, x) - logp(&s.reference, x);
        let m = 0.1 * (ratio(&chosen) - ratio(&rejected));
        accuracy += if m > 0.0 { 1.0 } else { 0.0 };
        margin += m;
        bits -= logp(&s.policy, &chosen) / std::f64::consts::LN_2;
        bytes += pair.chosen.len() as f64;
    }
    let n = pairs.len() as f64;
    assert_eq!(scored.overall(Metric::Margin).unwrap().n, pairs.len());
    assert!((all(&scored, Metric::RewardAccuracy) - accuracy / n).abs() < 1e-12);
    assert!((all(&scored, Metric::Margin) - margin / n).abs() < 1e-5);
    assert!((all(&scored, Metric::ChosenBitsPerByte) - bits / bytes).abs() < 1e-4);
    let kinds = scored.metrics.iter().filter(|m| m.metric == Metric::RewardAccuracy).count();
    assert!(kinds > 3, "all, and each kind of task on its own: {kinds}");
    assert!(scored.excluded.is_empty());
    let mean: f64 =
        scored.examples.iter().filter(|e| e.metric == Metric::Margin).map(|e| e.value).sum::<f64>() / n;
    assert!((mean - all(&scored, Metric::Margin)).abs() < 1e-12, "examples and aggregate agree");
}

#[test]
fn a_policy_that_equals_its_reference_and_its_base_ties_with_both() {
    let s = setting();
    let scored = s.score(&s.reference, None, &find("world", "preference").unwrap()).unwrap();
    assert_eq!(all(&scored, Metric::RewardAccuracy), 0.5);
    let suite = find("world", "generation").unwrap();
    let base = s.score(&s.reference, None, &suite).unwrap();
    let again = s.score(&s.reference, Some(&base), &suite).unwrap();
    assert_eq!(all(&again, Metric::WinRateBase), 0.5);
    assert!(all(&again, Metric::KlSequence).abs() < 1e-5);
    assert!(base.overall(Metric::WinRateBase).is_none(), "the base has no base");
    assert!(again.sentinels.is_empty() && base.sentinels.len() == 7, "sentinels play once");
    let texts = |s: &ScoredSuite| s.samples.iter().map(|s| s.completion.clone()).collect::<Vec<_>>();
    assert_eq!(texts(&base), texts(&again));

    // Where it is known that the policy is the reference, nothing is computed twice, and the zeros are exact.
    for (suite, metric) in
        [(find("world", "preference").unwrap(), Metric::Margin), (suite, Metric::KlSequence)]
    {
        let mut ctx = ScoreContext {
            policy: &s.reference,
            reference: None,
            tokenizer: &s.tokenizer,
            data: &s.spec,
            heldout: &s.heldout,
            base: None,
            seed: 9,
            max_examples: 0,
            reserve: 0,
            beta: 0.1,
            slots: 8,
        };
        let own = score(&mut ctx, &suite).unwrap();
        assert_eq!(
            (all(&own, metric), texts(&own).len()),
            (0.0, s.score(&s.reference, None, &suite).unwrap().samples.len())
        );
    }
}

#[test]
fn samples_of_the_world_carry_their_gold_reward_and_their_outcomes() {
    let s = setting();
    let suite = find("world", "generation").unwrap();
    let base = s.score(&s.reference, None, &suite).unwrap();
    let scored = s.score(&s.policy, Some(&base), &suite).unwrap();
    let prompts = s.world.heldout_prompts();
    assert_eq!(scored.samples.len(), prompts.len());
    let (mut wins, mut ties, mut reward) = (0.0, 0, 0.0);
    for (sample, prompt) in scored.samples.iter().zip(&prompts) {
        assert_eq!((&sample.example, &sample.prompt), (&prompt.id, &prompt.prompt));
        let gold = |c: &str| s.world.gold_reward(&prompt.prompt, c);
        assert_eq!(sample.reward, Some(gold(&sample.completion)));
        reward += gold(&sample.completion);
        let chosen = sample.opponents.iter().find(|o| o.kind == OpponentKind::Chosen).unwrap();
        assert_eq!(chosen.completion, prompt.chosen);
        let expected = match gold(&sample.completion).partial_cmp(&gold(&prompt.chosen)).unwrap() {
            std::cmp::Ordering::Greater => 1.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Less => 0.0,
        };
        assert_eq!(chosen.outcome.preference, Some(expected));
        wins += expected;
        ties += usize::from(sample.opponents.iter().any(|o| o.outcome.preference == Some(0.5)));
    }
    let n = prompts.len() as f64;
    assert!((all(&scored, Metric::WinRateChosen) - wins / n).abs() < 1e-12);
    assert!((all(&scored, Metric::GoldReward) - reward / n).abs() < 1e-12);
    assert!(ties < prompts.len());
    assert!(all(&scored, Metric::KlSequence) > 0.0, "two random models differ");
    let per_token = all(&scored, Metric::KlPerToken) * all(&scored, Metric::CompletionTokens);
    assert!((per_token - all(&scored, Metric::KlSequence)).abs() < 1e-9);
    assert!(scored.metrics.iter().any(|m| m.subset != ALL), "by kind of task");
}

/// A suite file that points at a folder with these rows.
fn local(dir: &Path, text: &str, rows: &[(&str, &str)]) -> Suite {
    for (file, rows) in rows {
        fs::write(dir.join(file), rows).unwrap();
    }
    let mut suite = Suite::parse(text, "test.toml").unwrap();
    (suite.source, suite.config) = (dir.display().to_string(), String::new());
    suite.decoding.max_new_tokens = 6;
    suite
}

#[test]
fn rows_of_prompts_become_samples_that_a_rule_judges() {
    let s = setting();
    let dir = tempfile::tempdir().unwrap();
    let text = kto_eval::suite::show("gsm8k").unwrap()[0].1.replace("count = 5", "count = 2");
    let row = |i: usize| format!("{{\"question\": \"q {i}\", \"answer\": \"steps\\n#### {i}\"}}\n");
    let test: String = (0..4).map(row).collect();
    let train: String = (10..15).map(row).collect();
    let suite = local(dir.path(), &text, &[("test.jsonl", &test), ("train.jsonl", &train)]);
    let scored = s.score(&s.policy, None, &suite).unwrap();
    assert_eq!(scored.samples.len(), 4);
    let prompt = &scored.samples[1].prompt;
    assert!(prompt.ends_with("\n\nQuestion: q 1\nAnswer:"), "{prompt}");
    assert_eq!(prompt.matches("#### 1").count(), 2, "two solved examples: {prompt}");
    assert_eq!(all(&scored, Metric::ExactMatch), 0.0, "a random model of another vocabulary");
    let error = render(
        &s.score(&s.policy, None, &local(dir.path(), &text.replace("count = 2", "count = 9"), &[]))
            .unwrap_err(),
    );
    assert!(error.contains("few_shot asks for 9 examples and the split `train` has 5"), "{error}");
    // One file for both splits: the solved examples would be the questions.
    let mut suite = local(dir.path(), &text, &[("gsm8k.jsonl", &test)]);
    suite.source += "/gsm8k.jsonl";
    let error = render(&s.score(&s.policy, None, &suite).unwrap_err());
    assert!(error.contains("few_shot: `train` and `test` are the same rows"), "{error}");
}

#[test]
fn prompts_that_cannot_be_judged_or_sampled_are_counted() {
    let s = setting();
    let dir = tempfile::tempdir().unwrap();
    let row = |key: usize, prompt: &str, kind: &str| {
        format!(
            "{{\"key\": {key}, \"prompt\": \"{prompt}\", \"instruction_id_list\": [\"{kind}\"], \"kwargs\": [{{}}]}}\n"
        )
    };
    let rows = [
        row(1, "say something", "punctuation:no_comma"),
        row(2, "auf deutsch", "language:response_language"),
        row(3, &"long ".repeat(200), "punctuation:no_comma"),
    ];
    let text = &kto_eval::suite::show("ifeval").unwrap()[0].1;
    let suite = local(dir.path(), text, &[("train.jsonl", &rows.concat())]);
    let scored = s.score(&s.policy, None, &suite).unwrap();
    assert_eq!((scored.samples.len(), scored.samples[0].example.as_str()), (1, "1"));
    let reasons = scored.exclusions();
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert!(reasons.iter().any(|(r, n)| r.contains("response_language") && *n == 1));
    assert!(reasons.iter().any(|(r, n)| r.contains("context holds 96") && *n == 1));
    let suite = local(dir.path(), text, &[("train.jsonl", &(rows[0].clone() + &rows[0]))]);
    let error = render(&s.score(&s.policy, None, &suite).unwrap_err());
    assert!(error.contains("the id `1` occurs twice"), "{error}");
}

fn pair(id: &str, prompt: &str, chosen: &str, rejected: &str) -> PreferencePair {
    let [id, prompt, chosen, rejected] = [id, prompt, chosen, rejected].map(str::to_owned);
    PreferencePair { id, prompt, chosen, rejected, subset: String::new() }
}

#[test]
fn what_is_cut_is_measured_by_what_is_left_and_said() {
    let mut s = setting();
    let prompt = "sort 7 2 9 :";
    let long = format!(" 2 7 9 .{}", " nice round soft warm".repeat(20));
    s.heldout =
        Dataset::Paired(vec![pair("short", prompt, " 2 7 9 .", " 9 ."), pair("long", prompt, &long, " 9 .")]);
    s.spec.max_length = s.tokenizer.encode(prompt).unwrap().len() + 6;
    let suite = find("heldout", "preference").unwrap();
    let scored = s.score(&s.policy, None, &suite).unwrap();
    assert_eq!((scored.pairs[0].chosen_bytes, scored.pairs[0].chosen_tokens), (" 2 7 9 .".len(), 5));
    assert_eq!(scored.pairs[1].chosen_tokens, 6);
    assert_eq!(
        scored.pairs[1].chosen_bytes,
        "2 7 9 . nice round".len(),
        "six tokens of {} bytes",
        long.len()
    );
    assert_eq!(scored.remarks().count(), 1);
    assert!(scored.remarks().all(|r| r.contains("1 of 4 completions are cut, at")), "{:?}", scored.notes);
    s.spec.max_length = 128;
    assert_eq!(s.score(&s.policy, None, &suite).unwrap().remarks().count(), 0);
}

#[test]
fn pairs_of_one_prompt_share_a_cluster_however_their_tokens_begin() {
    let mut s = setting();
    // Without a space the last word of the prompt is another token once the completion follows.
    s.heldout = Dataset::Paired(vec![
        pair("a", "sort 7 2 9", " 2 7 9 .", " 9 ."),
        pair("b", "sort 7 2 9", "0 7 9 .", "0 ."),
    ]);
    let scored = s.score(&s.policy, None, &find("heldout", "preference").unwrap()).unwrap();
    assert_eq!(scored.pairs.len(), 2);
    assert_eq!(scored.pairs[0].cluster, scored.pairs[1].cluster);
}

#[test]
fn templates_make_pairs_of_rows_with_a_form_of_their_own() {
    let s = setting();
    let dir = tempfile::tempdir().unwrap();
    let row = |label: u8| {
        format!(
            "{{\"history\": \"ask\", \"human_ref_A\": \"a one\", \"human_ref_B\": \"b two three\", \"labels\": {label}}}\n"
        )
    };
    let text = &kto_eval::suite::show("shp").unwrap()[0].1;
    let suite = local(dir.path(), text, &[("test.jsonl", &(row(1) + &row(0)))]);
    let sequences = RefCell::new(Vec::new());
    let mut reference = |batch: &[Sequence]| {
        sequences.borrow_mut().extend(batch.iter().map(|q| s.tokenizer.decode(&q.ids).unwrap()));
        Ok(vec![0.0; batch.len()])
    };
    let mut ctx = ScoreContext {
        policy: &s.policy,
        reference: Some(&mut reference),
        tokenizer: &s.tokenizer,
        data: &s.spec,
        heldout: &s.heldout,
        base: None,
        seed: 0,
        max_examples: 0,
        reserve: 0,
        beta: 1.0,
        slots: 1,
    };
    let scored = score(&mut ctx, &suite).unwrap();
    let margins: Vec<f64> =
        scored.examples.iter().filter(|e| e.metric == Metric::Margin).map(|e| e.value).collect();
    assert!(
        (margins[0] + margins[1]).abs() < 1e-5,
        "the second row is the first with its label turned: {margins:?}"
    );
    assert_eq!(scored.examples[0].cluster, scored.examples[1].cluster, "one post");
    let seen = sequences.borrow();
    assert_eq!((&seen[0], &seen[1]), (&seen[3], &seen[2]));
    let broken = local(dir.path(), text, &[("test.jsonl", "{\"history\": \"x\"}\n")]);
    let error = render(&s.score(&s.policy, None, &broken).unwrap_err());
    assert!(error.contains("test.jsonl:1") && error.contains("`history`"), "{error}");
}
