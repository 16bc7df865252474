//! Win rates against the official AlpacaEval package on simulated files.

use kto_eval::stats::winrate::{Judgment, length_controlled, matrix, parse, winrate_file};

/// The files that the reference numbers were made from, by the same integer recurrence as
/// `tests/golden/winrate_reference.py`.
fn annotations(seed: u64, n: usize, graded: bool) -> String {
    let mut x = seed;
    let mut draw = |m: i64| {
        x = (1_103_515_245 * x + 12_345) % 2_147_483_648;
        (x >> 8) as i64 % m
    };
    let rows: Vec<String> = (0..n)
        .map(|i| {
            let (one, two) = (40 + draw(400), 30 + draw(600));
            let lean = 45 + (two - one).div_euclid(16) + draw(40) - 20;
            let preference = if graded {
                1.0 + (10 * lean + draw(400) - 200).clamp(0, 1000) as f64 / 1000.0
            } else if draw(20) == 0 {
                1.5
            } else if draw(100) < lean {
                2.0
            } else {
                1.0
            };
            format!(
                r#"{{"index":{i},"output_1":"{}","output_2":"{}","generator_1":"reference","generator_2":"candidate","preference":{preference}}}"#,
                "a".repeat(one as usize),
                "b".repeat(two as usize)
            )
        })
        .collect();
    format!("[{}]", rows.join(","))
}

#[test]
fn figures_equal_the_official_package() {
    // alpaca_eval 0.6.6 (scikit-learn 1.9.1): tests/golden/winrate_reference.py SEED N graded|discrete
    let official = [
        (1, 805, true, 50.45416149068323, 0.7191186534296863, 45.3574482431863),
        (2, 805, false, 52.2360248447205, 1.704769100560683, 46.60199321629817),
        (3, 100, false, 53.5, 4.9367207862316995, 50.0),
    ];
    for (seed, n, graded, rate, error, controlled) in official {
        let judgments = parse(&annotations(seed, n, graded), None).unwrap().judgments;
        let (rates, _) = winrate_file(&judgments, 0, 0.05, 1);
        let got = &rates[0];
        assert!((100.0 * got.raw.rate - rate).abs() < 1e-9, "{got:?}");
        assert!((100.0 * got.raw.standard_error - error).abs() < 1e-9, "{got:?}");
        let lc = got.length_controlled.unwrap();
        assert!((100.0 * lc.rate - controlled).abs() < 0.1, "{lc:?}, official {controlled}");
    }
}

#[test]
fn length_control_takes_out_what_length_alone_wins() {
    // The longer answer wins three times in four, quality is equal, the candidate is mostly longer.
    let (mut preferences, mut differences) = (Vec::new(), Vec::new());
    for i in 0..2000 {
        let longer = i % 10 < 8;
        preferences.push(f64::from(u8::from((i / 10 % 4 < 3) == longer)));
        differences.push(if longer { -1.0 } else { 1.0 } * (200.0 + (i % 7) as f64));
    }
    let raw = preferences.iter().sum::<f64>() / 2000.0;
    let lc = length_controlled(&preferences, &differences).unwrap();
    assert!(raw > 0.64 && (lc.rate - 0.5).abs() < 0.01, "raw {raw}, {lc:?}");
}

fn judged(id: usize, candidate: &str, baseline: &str, preference: f64) -> Judgment {
    let (candidate, baseline) = (candidate.into(), baseline.into());
    Judgment {
        id: id.to_string(),
        candidate,
        baseline,
        preference,
        candidate_length: None,
        baseline_length: None,
    }
}

#[test]
fn strengths_recover_the_odds_and_the_matrix_adds_to_one() {
    // a beats b 3:1, b beats c 3:1, a beats c 9:1: strengths ln 3 apart.
    let mut judgments = Vec::new();
    for i in 0..4000 {
        judgments.push(judged(i, "a", "b", f64::from(u8::from(i % 4 < 3))));
        judgments.push(judged(i, "c", "b", f64::from(u8::from(i / 4 % 4 == 3))));
        judgments.push(judged(i, "a", "c", f64::from(u8::from(i / 16 % 10 < 9))));
    }
    let (_, strengths) = winrate_file(&judgments, 50, 0.05, 1);
    let values: Vec<f64> = strengths.iter().map(|s| s.strength).collect();
    assert!((values[0] - values[1] - 3f64.ln()).abs() < 0.02, "{strengths:?}");
    assert!((values[1] - values[2] - 3f64.ln()).abs() < 0.02, "{strengths:?}");
    assert!(strengths.iter().all(|s| s.interval.low < s.strength && s.strength < s.interval.high));
    let (names, rates) = matrix(&judgments);
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!((rates[0][1], rates[0][0]), (Some(0.75), None));
    assert!((rates[1][2].unwrap() + rates[2][1].unwrap() - 1.0).abs() < 1e-12);
}

fn error_of(text: &str) -> String {
    kto_eval::base::error::render(&parse(text, None).unwrap_err())
}

#[test]
fn an_error_names_the_line_and_what_the_file_takes() {
    let good = r#"{"id":"1","candidate":"k","baseline":"d","preference":1,"candidate_length":3,"baseline_length":4}"#;
    assert_eq!(parse(good, None).unwrap().judgments[0].preference, 1.0);
    let silent = good.replace(":1,", ":null,");
    let found = parse(&format!("{good}\n{silent}"), None).unwrap();
    assert_eq!((found.judgments.len(), found.invalid), (1, 1), "a judgment without an answer is counted");
    assert!(error_of(&silent).contains("no valid judgment"));
    let error = error_of;
    let bad = error(&format!("{good}\n{}", good.replace(":1,", ":1.4,")));
    assert!(bad.contains("line 2") && bad.contains("outside 0 to 1") && bad.contains("hint:"), "{bad}");
    assert!(error("").contains("no judgments"));
    assert!(error(&format!("{good}\n{{\"id\"")).contains("line 2"));
    assert!(error(r#"[{"preference":2.5}]"#).contains("annotation 1"));
}

#[test]
fn annotations_of_one_instruction_share_their_prompt() {
    let row = |generator: &str, instruction: &str| {
        format!(
            r#"{{"instruction":"{instruction}","output_1":"a","output_2":"b","generator_1":"reference","generator_2":"{generator}","preference":2}}"#
        )
    };
    let list = format!("[{},{},{}]", row("x", "why?"), row("x", "how?"), row("y", "why?"));
    let ids: Vec<String> = parse(&list, None).unwrap().judgments.into_iter().map(|j| j.id).collect();
    assert_eq!(ids, ["why?", "how?", "why?"]);
}

#[test]
fn suites_are_rated_apart_and_seeds_of_one_prompt_are_one_cluster() {
    let row = |suite: &str, seed: u64, id: usize, preference: f64| {
        format!(
            r#"{{"run":"kto-s{seed}","arm":"kto","seed":{seed},"suite":"{suite}","id":"{id}","candidate":"kto","baseline":"base","preference":{preference},"flipped":false,"candidate_length":3,"baseline_length":4}}"#
        )
    };
    // Three seeds that agree on each of four prompts; another suite's examples have the same ids.
    let seeds = |suite: &'static str, won: [f64; 4]| {
        (1..=3).flat_map(move |seed| (0..4).map(move |id| row(suite, seed, id, won[id])))
    };
    let file: Vec<String> = seeds("hh", [1.0, 0.0, 0.0, 0.0]).chain(seeds("mt", [1.0; 4])).collect();
    let file = file.join("\n");
    let both = error_of(&file);
    assert!(both.contains("several suites: hh, mt") && both.contains("--suite mt"), "{both}");
    let none = parse(&file, Some("hhh")).unwrap_err();
    assert!(kto_eval::base::error::render(&none).contains("did you mean `hh`?"), "{none:#}");
    let (rates, _) = winrate_file(&parse(&file, Some("hh")).unwrap().judgments, 50, 0.05, 1);
    // Four prompts: sd ½ over √4; of twelve judgments on their own it would be √(3/16 · 12/11)/√12.
    assert!((rates[0].raw.rate - 0.25).abs() < 1e-12 && (rates[0].raw.standard_error - 0.25).abs() < 1e-12);
    assert_eq!((rates[0].raw.wins, rates[0].raw.losses), (3, 9));
}
