use crate::base::error::render;
use crate::plan::{Budget, Overrides, Plan};

const SWEPT: &str = r#"
seeds = [1, 2]
budget = { tokens = 1000 }
[model]
source = "world"
[data]
source = "world"
[data.feedback]
fraction = [0.1, 1.0]
[[arm]]
method = "kto"
beta = [0.05, 0.1]
[[arm]]
method = "dpo"
"#;

fn parse(text: &str) -> Plan {
    Plan::parse(text, "p.toml", &Overrides::default()).unwrap_or_else(|e| panic!("{}", render(&e)))
}

fn refusal(text: &str) -> String {
    Plan::parse(text, "p.toml", &Overrides::default())
        .map_or_else(|e| render(&e), |_| panic!("accepted: {text}"))
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.arms.iter().map(|a| a.name.as_str()).collect()
}

#[test]
fn lists_make_every_combination_and_each_arm_has_its_values() {
    let plan = parse(SWEPT);
    assert_eq!(
        names(&plan),
        [
            "kto@fraction=0.1@beta=0.05",
            "kto@fraction=0.1@beta=0.1",
            "kto@fraction=1@beta=0.05",
            "kto@fraction=1@beta=0.1",
            "dpo@fraction=0.1",
            "dpo@fraction=1"
        ]
    );
    assert_eq!(plan.runs().len(), 12);
    let fractions: Vec<f64> = plan.arms.iter().map(|a| a.data.feedback.fraction).collect();
    assert_eq!(fractions, [0.1, 0.1, 1.0, 1.0, 0.1, 1.0]);
    assert_eq!(plan.data.feedback.fraction, 1.0, "the held-out split belongs to no point");
    assert_eq!((plan.arms[1].template(), plan.arms[5].template()), ("kto", "dpo"));
    let ids: std::collections::BTreeSet<String> = plan.runs().into_iter().map(|r| r.id).collect();
    assert_eq!(ids.len(), 12);
}

#[test]
fn an_arm_beside_it_moves_no_run() {
    let ids = |text: &str| parse(text).runs().into_iter().map(|r| r.id).collect::<Vec<_>>();
    let alone = ids(&SWEPT.replace("[[arm]]\nmethod = \"dpo\"\n", ""));
    let all = ids(SWEPT);
    assert_eq!(alone.len(), 8);
    assert!(alone.iter().all(|id| all.contains(id)));
    assert_eq!(all, ids(SWEPT), "expansion is pure");
}

#[test]
fn a_swept_plan_written_out_parses_to_itself() {
    let more = [
        SWEPT.to_owned(),
        SWEPT.replace("tokens = 1000", "tokens = [500, 1000]"),
        SWEPT.replace("beta = [0.05, 0.1]", "sft_first = [0.0, 0.25]\nlearning_rate = [1e-5, 1e-4]"),
        SWEPT.replace("[[arm]]\nmethod = \"dpo\"", "[sweep]\nclaim = \"x\"\nagainst = [\"dpo\"]\n[prices]\ndevice_hour = 2\n[[arm]]\nmethod = \"dpo\"\ndata.feedback.fraction = 0.5"),
        SWEPT.replace("fraction = [0.1, 1.0]", "").replace("beta = [0.05, 0.1]", "tune = { beta = { from = 0.1, to = 1.0 } }").replace("\"dpo\"", "\"dpo\"\ntune.beta = [0.1, 0.2]\n[tune]\ntrials = 3"),
    ];
    for text in more {
        let plan = parse(&text);
        let written = plan.to_toml();
        assert_eq!(parse(&written), plan, "{written}");
    }
}

#[test]
fn sections_and_budgets_may_hold_lists_too_and_an_arm_own_value_stands() {
    let plan =
        parse(&SWEPT.replace("tokens = 1000", "tokens = [500, 1000]").replace("fraction = [0.1, 1.0]", ""));
    assert_eq!(plan.budget, Budget::Tokens(1000), "what no arm exceeds");
    assert_eq!(plan.arms.iter().map(|a| a.budget.amount()).sum::<f64>(), 4500.0);
    let text = SWEPT.replace("fraction = [0.1, 1.0]", "").replace(
        "[[arm]]\nmethod = \"dpo\"",
        "[train]\nlearning_rate = [1e-4, 1e-3]\n[[arm]]\nmethod = \"dpo\"\nlearning_rate = 0.5",
    );
    assert_eq!(names(&parse(&text)).last(), Some(&"dpo"));
    assert_eq!(parse(&text).arms.len(), 5);
}

#[test]
fn arms_are_compared_at_equal_values_and_with_what_the_plan_names() {
    let plan = parse(&SWEPT.replace("beta = [0.05, 0.1]", ""));
    let compares = |a: &str, b: &str| {
        assert_eq!(plan.compares(a, b), plan.compares(b, a));
        plan.compares(a, b)
    };
    assert!(compares("kto@fraction=0.1", "dpo@fraction=0.1"));
    assert!(!compares("kto@fraction=0.1", "dpo@fraction=1"));
    assert!(!compares("kto@fraction=0.1", "kto@fraction=1"));
    let named = SWEPT
        .replace("beta = [0.05, 0.1]", "")
        .replace("seeds", "sweep.against = [\"dpo@fraction=1\"]\nseeds");
    let plan = parse(&named);
    assert!(plan.compares("kto@fraction=0.1", "dpo@fraction=1"));
    assert!(plan.compares("dpo@fraction=0.1", "dpo@fraction=1"));
    let shared = parse(SWEPT);
    assert!(shared.compares("kto@fraction=0.1@beta=0.05", "dpo@fraction=0.1"));
    assert!(!shared.compares("kto@fraction=0.1@beta=0.05", "dpo@fraction=1"));
}

#[test]
fn any_key_of_the_data_takes_a_list_and_the_questions_are_those_of_the_first_value() {
    let of = |list: &str| {
        SWEPT.replace("[data.feedback]\nfraction = [0.1, 1.0]", list).replace("[0.05, 0.1]", "0.1")
    };
    let plan = parse(&of("[data.world]\nflip = [0.2, 0.0]\ntrain_pairs = [50, 60]"));
    assert_eq!(plan.arms.len(), 8);
    assert_eq!((plan.data.world.flip, plan.data.world.train_pairs), (0.2, 50));
    let arm = plan.arms.iter().find(|a| a.name == "kto@flip=0@train_pairs=60").unwrap();
    assert_eq!((arm.data.world.flip, arm.data.world.train_pairs), (0.0, 60));
    assert_eq!(arm.data.world.heldout_pairs, plan.data.world.heldout_pairs);

    let text = of("revision = [\"a\", \"b\"]")
        .replace("source = \"world\"\n[data]", "source = \"m\"\n[data]")
        .replace("[data]\nsource = \"world\"", "[data]\nsource = [\"org/one\", \"data/two.jsonl\"]");
    let plan = parse(&text);
    assert_eq!(names(&plan)[1], "kto@revision=a@source=data-two.jsonl");
    assert_eq!((plan.data.source.as_str(), plan.arms[1].data.source.as_str()), ("org/one", "data/two.jsonl"));
    let again = Plan::parse(&plan.to_toml(), "p.toml", &Overrides::default()).unwrap();
    assert_eq!(again.hash(), plan.hash());

    let own = parse(&SWEPT.replace("method = \"dpo\"", "method = \"dpo\"\ndata.world.flip = 0.3"));
    assert_eq!((own.arms[4].data.world.flip, own.data.world.flip), (0.3, 0.05));
}

#[test]
fn what_contradicts_itself_is_refused_with_its_line() {
    for (from, to, says) in [
        ("fraction = [0.1, 1.0]", "fraction = []", &["p.toml:9", "empty list"][..]),
        ("fraction = [0.1, 1.0]", "fraction = [0.1, 0.10]", &["p.toml:9", "twice"]),
        ("fraction = [0.1, 1.0]", "fraction = [0.1, 1.5]", &["p.toml:9", "is 1.5", "at most 1"]),
        ("fraction = [0.1, 1.0]", "fraction = [[0.1]]", &["p.toml:9", "single values"]),
        (
            "fraction = [0.1, 1.0]",
            "imbalance = [1.0, 3.0]",
            &["p.toml:9", "`dpo@imbalance=1` (dpo) learns from pairs"],
        ),
        (
            "fraction = [0.1, 1.0]",
            "one_completion = true",
            &["p.toml:9", "`dpo` (dpo) learns from pairs", "hint"],
        ),
        ("fraction = [0.1, 1.0]", "flip = [0.1, 0.6]", &["p.toml:9", "0.6", "below one half"]),
        (
            "[data.feedback]\nfraction = [0.1, 1.0]",
            "[data.world]\nheldout_pairs = [100, 200]",
            &["p.toml:9", "held-out questions"],
        ),
        ("beta = [0.05, 0.1]", "data.world.heldout_pairs = 9", &["p.toml:12", "belongs to the whole plan"]),
        ("beta = [0.05, 0.1]", "data.world.flip = [0.1, 0.7]", &["p.toml:12", "is 0.7", "[0, 0.5)"]),
        (
            "beta = [0.05, 0.1]",
            "data.source = [\"world\", \"x\"]",
            &["p.toml:12", "is not `world`", "the world's own vocabulary"],
        ),
        ("beta = [0.05, 0.1]", "budget = { tokens = 7 }", &["p.toml:12", "every arm spends the same"]),
        (
            "beta = [0.05, 0.1]",
            "beta = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]\nlearning_rate = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]\nwarmup = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]",
            &["p.toml:1", "1200 points", "fraction (2) × beta (10) × ", "hint: a sweep tries every"],
        ),
        ("beta = [0.05, 0.1]", "sft_first = 1.0", &["p.toml:12", "below 1"]),
        ("\"dpo\"", "\"sft\"\nsft_first = 0.5", &["p.toml:15", "SFT before SFT"]),
        (
            "seeds",
            "sweep.arms = [\"dop\"]\nseeds",
            &["unknown arm `dop` (known: kto@fraction=0.1@beta=0.05", "dpo@fraction=1, kto, dpo"],
        ),
        ("\"dpo\"", "\"dpo\"\ntune.beta = [1.0]", &["p.toml:15", "no [tune]"]),
        ("\"dpo\"", "\"dpo\"\n[tune]\ntrials = 2", &["has no `tune`"]),
    ] {
        assert!(SWEPT.contains(from), "the test replaces {from}");
        let text = refusal(&SWEPT.replacen(from, to, 1));
        for part in says {
            assert!(text.contains(part), "{to}\n  says: {text}\n  lacks: {part}");
        }
    }
}
