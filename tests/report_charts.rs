//! What charts show: runs where their rows are, metrics that were asked about, quantities on a scale that they share.

mod report_fixture;

use std::fs;

use kto_eval::record::PhaseRow;
use kto_eval::report::{self, Input};

/// The report's folder, and the SVG of one of its charts.
fn drawn(input: &Input, chart: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    report::write(input, dir.path()).unwrap();
    let svg = fs::read_to_string(dir.path().join(format!("charts/{chart}.svg"))).unwrap();
    (dir, svg)
}

/// (x in a tenth of a pixel, amount) of every ring whose label ends in this unit.
fn rings(svg: &str, unit: &str) -> Vec<(f64, f64)> {
    let label = |group: &str| Some(group.split_once("<title>")?.1.split_once("</title>")?.0.to_owned());
    let ring = |group: &str| {
        let label = label(group)?;
        let amount =
            label.split_once(", one seed: ")?.1.rsplit_once(" at ")?.1.strip_suffix(unit)?.parse().ok()?;
        let x = group.split_once("cx=\"")?.1.split_once('"')?.0.parse().ok()?;
        Some((x, amount))
    };
    svg.split("<g class=\"mark\"").filter_map(ring).collect()
}

#[test]
fn runs_stand_at_what_they_cost_and_a_matched_currency_is_left_out() {
    let mut input = report_fixture::input(7);
    for run in &mut input.runs {
        run.flops = 1e12;
        run.train_seconds = match (run.arm.as_str(), run.seed) {
            (_, 3) => 100.0,
            ("kto", 2) => 21.0,
            (_, seed) => 10.0 * seed as f64,
        };
        run.tokens_per_second = run.policy_tokens as f64 / run.train_seconds;
    }
    let (dir, svg) = drawn(&input, "cost");
    assert!(!dir.path().join("charts/pareto.svg").exists(), "for the same compute there is no front");
    assert!(svg.contains("since all arms spent the same: policy tokens"), "{svg}");
    assert!(svg.contains("compute (1 T FLOPs)") && !svg.contains("compute (FLOPs, with"));
    // The arms stand closer than a marker is wide: what steps aside is a marker and no run.
    let rings = rings(&svg, " s");
    let x_of = |amount: f64| rings.iter().find(|r| r.1 == amount).unwrap().0;
    let scale = (x_of(100.0) - x_of(10.0)) / 90.0;
    assert_eq!(rings.len(), 9);
    for (x, amount) in &rings {
        assert!((x_of(10.0) + scale * (amount - 10.0) - x).abs() <= 2.0, "{x} is not where {amount} s is");
    }
    let markdown = fs::read_to_string(dir.path().join("report.md")).unwrap();
    assert!(markdown.contains("Runs of one arm took very different times (sft 10 to 100 s, dpo 10 to 100 s"));
    let throughput = fs::read_to_string(dir.path().join("charts/throughput.svg")).unwrap();
    assert!(throughput.contains("dpo: 20.0 seconds a run"), "the median, not the mean of 43");
}

#[test]
fn the_first_picture_is_of_the_primary_metrics_and_says_where_it_is_not() {
    let mut input = report_fixture::input(7);
    let drawn = |input: &Input| drawn(input, "headline").1;
    assert!(drawn(&input).contains("The metric that stands for each suite by arm"));
    input.plan["verdict"]["primary"] = serde_json::json!(["win_rate_base"]);
    let svg = drawn(&input);
    assert!(
        svg.contains("The plan&#39;s primary metrics by arm")
            && svg.contains("Win rate against base · world")
    );
    assert!(!svg.contains("Reward accuracy · heldout"), "which is secondary");
}

#[test]
fn margins_share_a_scale_and_a_reward_model_has_panels_of_its_own() {
    let mut input = report_fixture::input(7);
    let learning = |input: &Input| drawn(input, "learning").1;
    let plain = learning(&input);
    assert!(plain.contains("margin / β (nats)") && plain.contains("(dpo 0.1, kto 0.1)"), "{plain}");
    assert!(!plain.contains("Reward model:"));
    let until = input.steps.iter().find(|s| s.arm == "dpo" && s.step == 100).unwrap().total_policy_tokens;
    for run in input.runs.clone().into_iter().filter(|r| r.arm == "dpo") {
        input.phases.push(PhaseRow {
            run: run.run,
            arm: run.arm,
            seed: run.seed,
            phase: "reward-model".to_owned(),
            forward_tokens: 0,
            trained_tokens: until,
            flops: 1e9,
            seconds: 1.0,
        });
    }
    input.plan["arms"][2]["method"] = serde_json::json!({ "name": "external" });
    let apart = learning(&input);
    assert!(
        apart.contains("Reward model: accuracy on training pairs") && apart.contains("Reward model: loss")
    );
    assert!(apart.contains("margin (nats × an arm") && !apart.contains("margin / β"), "kto's β is not known");
}
