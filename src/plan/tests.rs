use super::*;
use crate::base::error::render;

const SMALL: &str = r#"
name = "small"
seeds = [1, 2]
budget = { tokens = 1000 }

[model]
source = "world"
[data]
source = "world"
[train]
batch_size = 8
[[arm]]
method = "sft"
[[arm]]
name = "strong"
method = "kto"
beta = 1
learning_rate = 1e-4
"#;

fn set(options: &[&str]) -> Overrides {
    Overrides { set: options.iter().map(|s| (*s).to_owned()).collect(), ..Overrides::default() }
}

fn parse(text: &str, options: &[&str]) -> Plan {
    Plan::parse(text, "p.toml", &set(options)).unwrap_or_else(|e| panic!("{}", render(&e)))
}

fn refusal(text: &str, options: &[&str]) -> String {
    match Plan::parse(text, "p.toml", &set(options)) {
        Ok(_) => panic!("accepted with {options:?}"),
        Err(e) => render(&e),
    }
}

#[test]
fn an_earlier_default_of_the_primary_metrics_is_todays() {
    let named = |names: &str| parse(SMALL, &[&format!("verdict.primary=[{names}]")]).hash();
    let before = "\"reward_accuracy\", \"win_rate_base\", \"win_rate\", \"exact_match\", \"prompt_strict\"";
    assert_eq!(named(before), parse(SMALL, &[]).hash());
    assert_ne!(named("\"win_rate_base\""), parse(SMALL, &[]).hash());
}

#[test]
fn defaults_are_filled_in_and_arms_inherit_the_train_section() {
    let plan = parse(SMALL, &[]);
    let [sft, kto] = plan.arms.as_slice() else { panic!("{:?}", plan.arms) };
    assert_eq!((sft.name.as_str(), &sft.method), ("sft", &Method::Sft));
    assert_eq!((sft.train.batch_size, sft.train.learning_rate), (8, TrainSpec::default().learning_rate));
    assert_eq!((kto.name.as_str(), kto.train.batch_size, kto.train.learning_rate), ("strong", 8, 1e-4));
    assert_eq!(kto.method, Method::Kto(KtoSpec { beta: 1.0, lambda: Lambda::Auto, z0: Z0::Next }));
    assert_eq!(plan.suites.generation, ["world"]);
}

#[test]
fn a_resolved_plan_written_out_parses_to_itself() {
    let fixed =
        ["arm.strong.lambda_desirable=1", "arm.strong.lambda_undesirable=1.33", "data.world.flip=0.1"];
    let odd = SMALL.replace("name = \"small\"", "name = \"a \\\"b\\\"\"\nanalysis = \"x\\n'''y\"");
    for plan in [parse(SMALL, &[]), parse(SMALL, &fixed), parse(&odd, &["budget.flops=1.5e12"])] {
        let text = plan.to_toml();
        let again = Plan::parse(&text, "plan.toml", &Overrides::default());
        assert_eq!(again.unwrap_or_else(|e| panic!("{}\n{text}", render(&e))), plan, "{text}");
    }
    for shipped in SHIPPED {
        let plan =
            Plan::open(shipped.name, &Overrides::default()).unwrap_or_else(|e| panic!("{}", render(&e)));
        assert_eq!(plan, parse(&plan.to_toml(), &[]), "{}", shipped.name);
    }
}

#[test]
fn every_method_parses_with_its_defaults_and_writes_them_all() {
    for method in METHODS {
        let plan = parse(&SMALL.replace("\"sft\"", &format!("\"{}\"", method.name)), &[]);
        let written = plan.arms[0].method.values();
        assert_eq!(plan.arms[0].method.name(), method.name);
        assert_eq!(written.len(), method.keys.len());
        for (key, (name, value)) in method.keys.iter().zip(&written) {
            assert_eq!((key.name, &key.takes.default()), (*name, value), "{}", method.name);
        }
        assert_eq!(parse(&plan.to_toml(), &[]), plan);
    }
}

#[test]
fn every_plan_file_is_shipped() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("suites/plans");
    let mut files: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    let mut shipped: Vec<String> = SHIPPED.iter().map(|p| format!("{}.toml", p.name)).collect();
    files.sort();
    shipped.sort();
    assert_eq!(files, shipped);
}

#[test]
fn set_reaches_every_section_and_the_last_one_wins() {
    let options = [
        "train.learning_rate=1e-3",
        "arm.strong.beta=0.2",
        "budget.steps=7",
        "seeds=[9]",
        "model.source=EleutherAI/pythia-70m",
        "data.world.temperature=0.5",
        "name=a=b",
        "arm.sft.batch_size=4",
        "arm.sft.batch_size=6",
    ];
    let plan = parse(SMALL, &options);
    assert_eq!((plan.name.as_str(), plan.budget, plan.seeds.as_slice()), ("a=b", Budget::Steps(7), &[9][..]));
    assert_eq!((plan.model.source.as_str(), plan.data.world.temperature), ("EleutherAI/pythia-70m", 0.5));
    assert_eq!((plan.arms[0].train.batch_size, plan.arms[0].train.learning_rate), (6, 1e-3));
    assert_eq!(plan.arms[1].train.learning_rate, 1e-4, "an arm's own key stands before [train]");
    let Method::Kto(kto) = &plan.arms[1].method else { panic!() };
    assert_eq!(kto.beta, 0.2);
    let short = Overrides { model: Some("m".into()), data: Some("d".into()), seeds: vec![4, 5], ..set(&[]) };
    let plan = Plan::parse(SMALL, "p.toml", &short).unwrap();
    assert_eq!((plan.model.source, plan.data.source, plan.seeds), ("m".into(), "d".into(), vec![4, 5]));
}

#[test]
fn what_is_wrong_in_a_file_is_said_with_its_line_and_what_would_do() {
    for (from, to, says) in [
        (
            "\"kto\"",
            "\"kot\"",
            &["p.toml:16: unknown method `kot` (known: sft, kto, dpo", "did you mean `kto`"][..],
        ),
        ("beta = 1", "gamma = 1", &["p.toml:17: unknown key for method kto `gamma`", "z0", "learning_rate"]),
        ("beta = 1", "bta = 1", &["did you mean `beta`"]),
        ("beta = 1", "beta = 0", &["p.toml:17: `arm.strong.beta` is 0; it must be a finite number above 0"]),
        ("beta = 1", "beta = \"x\"", &["p.toml:17", "above 0"]),
        ("beta = 1", "lambda_desirable = 1.0", &["p.toml:17", "give both, or neither"]),
        ("beta = 1", "lambda_desirable = -1", &["p.toml:17", "0 or above"]),
        ("beta = 1", "z0 = \"mean\"", &["p.toml:17", "\"next\" or \"previous\" or \"reversed\" or \"zero\""]),
        ("beta = 1", "batch_size = 1", &["p.toml:17", "at least 2", "z0 = \"zero\""]),
        ("batch_size = 8", "batch_size = 0", &["p.toml:11: `train.batch_size` is 0", "above 0"]),
        ("batch_size = 8", "batch_size = -3", &["p.toml:11", "-3", "whole number"]),
        (
            "batch_size = 8",
            "batchsize = 8",
            &["p.toml:11: unknown key in [train] `batchsize`", "`batch_size`"],
        ),
        ("batch_size = 8", "warmup = 1", &["p.toml:11", "below 1"]),
        ("batch_size = 8", "learning_rate = nan", &["p.toml:11", "NaN"]),
        ("batch_size = 8", "order = \"random\"", &["p.toml:11", "shuffled", "sequential"]),
        ("seeds = [1, 2]", "seeds = []", &["p.toml:3", "at least one seed"]),
        ("seeds = [1, 2]", "seeds = [1, 1]", &["p.toml:3", "holds 1 twice"]),
        ("seeds = [1, 2]", "seeds = [-1]", &["p.toml:3", "-1"]),
        ("seeds = [1, 2]", "", &["no `seeds`", "--seed"]),
        ("seeds = [1, 2]", "seeds = [1, 2", &["p.toml:"]),
        ("tokens = 1000", "tokens = 0", &["p.toml:4: `budget.tokens` is 0", "above 0"]),
        ("tokens = 1000", "seconds = -1.5", &["p.toml:4: `budget.seconds` is -1.5"]),
        ("tokens = 1000", "steps = 1.5", &["p.toml:4", "whole number"]),
        ("tokens = 1000", "tokens = 1, steps = 1", &["p.toml:4", "exactly one"]),
        ("tokens = 1000", "dollars = 1", &["p.toml:4: unknown budget currency `dollars` (known: tokens"]),
        ("name = \"strong\"", "name = \"sft\"", &["two arms are named `sft`"]),
        ("name = \"strong\"", "name = \"base\"", &["is taken"]),
        ("name = \"strong\"", "name = \"a.b\"", &["letters, digits"]),
        ("[train]", "[trian]", &["p.toml:10: unknown key `trian`", "did you mean `train`"]),
        (
            "[train]",
            "[data.world]\nflip = 0.5\n[train]",
            &["p.toml:11: `data.world.flip` is 0.5", "[0, 0.5)"],
        ),
        ("[train]", "[data.world]\ntemperature = 0\n[train]", &["p.toml:11", "above 0"]),
        ("[train]", "[verdict]\nalpha = 1.0\n[train]", &["p.toml:11", "(0, 1)"]),
        (
            "source = \"world\"\n[train]",
            "source = \"world\"\nmax_length = 1\n[train]",
            &["p.toml:10: `data.max_length` is 1; it must be at least 2"],
        ),
        ("beta = 1", "data.max_length = 1", &["p.toml:17: `arm.strong.data.max_length` is 1", "at least 2"]),
        ("source = \"world\"\n[data]", "[data]", &["p.toml:6: no `model.source`", "--model"]),
    ] {
        assert!(SMALL.contains(from), "the test replaces {from}");
        let text = refusal(&SMALL.replacen(from, to, 1), &[]);
        for part in says {
            assert!(text.contains(part), "{to}\n  says: {text}\n  lacks: {part}");
        }
    }
    let head = SMALL.split("[[arm]]").next().unwrap();
    let none = refusal(&format!("arm = []\n{head}"), &[]);
    assert!(none.contains("no arms") && none.contains("add [[arm]]"), "{none}");
    let pairs = refusal(&SMALL.replace("\"sft\"", "\"dpo\""), &["train.batch_size=7"]);
    assert!(pairs.contains("--set train.batch_size=7") && pairs.contains("must be even"), "{pairs}");
}

#[test]
fn what_is_wrong_in_an_option_names_the_option() {
    for (option, says) in [
        ("train.lr=1", "--set train.lr=1: unknown key in [train] `lr`"),
        ("nope=1", "--set nope=1: unknown key `nope` (known: name, analysis"),
        ("trian.lr=1", "--set trian.lr=1: unknown key `trian`"),
        ("arm.sft.method=stf", "--set arm.sft.method=stf: unknown method `stf`"),
        ("arm.sft.name=a/b", "--set arm.sft.name=a/b: "),
        ("train.learning_rate=fast", "--set train.learning_rate=fast: `train.learning_rate` is \"fast\""),
        ("arm.kto.beta=1", "unknown arm `kto` (known: sft, strong)"),
        ("arm.strong.betta=1", "--set arm.strong.betta=1: unknown key for method kto `betta`"),
        ("train", "no `=`"),
        ("train..x=1", "no dotted key"),
        ("name.x=1", "`name` is no section"),
        ("budget.tokens=0", "--set budget.tokens=0: `budget.tokens` is 0"),
        ("data.world.flip=2", "--set data.world.flip=2"),
    ] {
        let text = refusal(SMALL, &[option]);
        assert!(text.contains(says), "{option}\n  says: {text}\n  lacks: {says}");
    }
}

#[test]
fn runs_go_seed_by_seed_and_ids_change_with_whatever_determines_the_run() {
    let ids = |plan: &Plan| plan.runs().into_iter().map(|r| r.id).collect::<Vec<_>>();
    let plan = parse(SMALL, &[]);
    let runs = plan.runs();
    let order: Vec<_> = runs.iter().map(|r| (r.seed, r.arm.name.as_str())).collect();
    assert_eq!(order, [(1, "sft"), (1, "strong"), (2, "sft"), (2, "strong")]);
    assert!(runs[1].id.starts_with("strong-s1-") && runs[1].id.len() == "strong-s1-".len() + 6);
    // Neither words nor verdicts nor other arms' settings touch a run.
    for same in ["analysis=x", "verdict.alpha=0.1", "suites.max_examples=3"] {
        assert_eq!(ids(&parse(SMALL, &[same])), ids(&plan), "{same}");
    }
    let other = parse(SMALL, &["arm.strong.beta=0.2"]);
    assert_eq!(ids(&other)[0], ids(&plan)[0]);
    assert_ne!(ids(&other)[1], ids(&plan)[1]);
    for differs in [
        "budget.tokens=2000",
        "model.dtype=bf16",
        "model.reference_revision=old",
        "data.max_length=64",
        "data.heldout_fraction=0.2",
        "train.batch_size=4",
    ] {
        let changed = ids(&parse(SMALL, &[differs]));
        assert!(changed.iter().zip(ids(&plan)).all(|(a, b)| *a != b), "{differs}");
    }
    assert_eq!(plan.hash(), parse(SMALL, &["analysis=y"]).hash());
    assert_ne!(plan.hash(), other.hash());
    // Updates are the same bit for bit: a comparison begun without it may go on with it.
    let slower = parse(SMALL, &["train.gradient_checkpointing=true"]);
    assert_eq!((ids(&slower), slower.hash()), (ids(&plan), plan.hash()));
    let spec = |plan: &Plan| plan.arms[0].train.determining();
    assert_eq!(spec(&slower), spec(&plan));
    assert_ne!(spec(&parse(SMALL, &["train.micro_tokens=64"])), spec(&plan));
}

#[test]
fn records_of_earlier_versions_keep_their_ids() {
    let reports = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("reports");
    let folders: Vec<_> = std::fs::read_dir(reports).unwrap().map(|e| e.unwrap().path()).collect();
    let mut checked = 0;
    for folder in folders.iter().filter(|f| f.join("runs.csv").is_file()) {
        let plan = parse(&std::fs::read_to_string(folder.join("plan.toml")).unwrap(), &[]);
        let ids: Vec<String> = plan.runs().into_iter().map(|r| r.id).collect();
        let rows = csv::Reader::from_path(folder.join("runs.csv")).unwrap().into_records();
        let recorded: Vec<String> = rows.map(|row| row.unwrap()[0].to_owned()).collect();
        assert_eq!(recorded, ids, "{}", folder.display());
        checked += recorded.len();
    }
    assert!(checked > 20, "quickstart, hh-harmless, rlhf: {checked}");
}

#[test]
fn the_readmes_plans_are_plans() {
    let head = "seeds = [1]\nbudget = { tokens = 1000 }\n[model]\nsource = \"m\"\n[data]\nsource = \"d\"\n";
    let readme = include_str!("../../README.md");
    let blocks: Vec<&str> =
        readme.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 4, "plan, sweep, tuning, trainer");
    for block in blocks {
        let text = if block.contains("seeds =") { block.to_owned() } else { head.to_owned() + block };
        if let Err(error) = Plan::parse(&text, "README.md", &Overrides::default()) {
            panic!("{}\n{block}", render(&error));
        }
    }
}
