//! Example rows sorted into paired designs: names become numbers, one sort, one pass.

use std::collections::HashMap;

use super::Paired;
use crate::plan::BASE_ARM;
use crate::record::{ExampleRow, ScoreRow};

/// The metric that is measured against the base, and what the base has on it.
const AGAINST_BASE: &str = "win_rate_base";
const EVEN: f64 = 0.5;
/// Metrics that are read off the implicit reward log π/π_ref, by example.
const OF_IMPLICIT_REWARD: [&str; 3] = ["reward_accuracy", "margin", "brier"];
/// Two computations of one implicit reward differ by less.
const NOISE: f64 = 1e-4;

/// One value, by numbers in place of names.
#[derive(Clone, Copy)]
struct Cell {
    suite: u32,
    metric: u32,
    arm: u32,
    seed: u64,
    example: u32,
    cluster: u32,
    value: f64,
}

/// Example values by suite, metric, arm and seed.
pub struct Table<'a> {
    suites: Names<'a>,
    metrics: Names<'a>,
    arms: Names<'a>,
    /// Distinct (suite, example) pairs.
    examples: usize,
    cells: Vec<Cell>,
}

/// Values of one suite and metric.
pub struct Group<'t> {
    pub suite: &'t str,
    pub metric: &'t str,
    /// Arms with values, in order of first appearance, `base` last.
    arms: Vec<(&'t str, Vec<Run<'t>>)>,
    examples: usize,
}

/// The cells of one arm under one seed, ordered by example, one each.
struct Run<'t> {
    seed: u64,
    cells: &'t [Cell],
}

/// The design of a pair of arms.
pub struct Pairing {
    pub design: Paired,
    /// Examples that one of the arms lacks under one of the seeds.
    pub dropped: usize,
}

/// Names numbered in order of first appearance.
#[derive(Default)]
struct Names<'a> {
    names: Vec<&'a str>,
    index: HashMap<&'a str, u32>,
}

impl<'a> Names<'a> {
    fn number(&mut self, name: &'a str) -> u32 {
        let names = &mut self.names;
        *self.index.entry(name).or_insert_with(|| {
            names.push(name);
            names.len() as u32 - 1
        })
    }
}

impl<'a> Table<'a> {
    /// `planned` arms come first, whether or not they have rows; else `scores` fixes the order of suites, metrics and
    /// arms. Values that are not finite count as missing.
    pub fn new(planned: &[&'a str], examples: &'a [ExampleRow], scores: &'a [ScoreRow]) -> Self {
        let (mut suites, mut metrics, mut arms) = (Names::default(), Names::default(), Names::default());
        planned.iter().for_each(|arm| {
            arms.number(arm);
        });
        for row in scores {
            suites.number(&row.suite);
            metrics.number(&row.metric);
            arms.number(&row.arm);
        }
        let mut ids: HashMap<(u32, &str), u32> = HashMap::new();
        let mut clusters: HashMap<(u32, &str), u32> = HashMap::new();
        let mut cells = Vec::with_capacity(examples.len());
        for row in examples {
            let suite = suites.number(&row.suite);
            let fresh = ids.len() as u32;
            let example = *ids.entry((suite, &row.example)).or_insert(fresh);
            let fresh = clusters.len() as u32;
            // Without a cluster an example stands for itself.
            let prompt = if row.cluster.is_empty() { &row.example } else { &row.cluster };
            let cluster = *clusters.entry((suite, prompt)).or_insert(fresh);
            let (metric, arm) = (metrics.number(&row.metric), arms.number(&row.arm));
            if row.value.is_finite() {
                cells.push(Cell { suite, metric, arm, seed: row.seed, example, cluster, value: row.value });
            }
        }
        cells.sort_by_key(|c| (c.suite, c.metric, c.arm, c.seed, c.example));
        // The same example twice (a suite listed twice): the first stays, so that no example counts double.
        cells.dedup_by_key(|c| (c.suite, c.metric, c.arm, c.seed, c.example));
        Self { suites, metrics, arms, examples: ids.len(), cells }
    }

    /// Groups in the order in which scores list them.
    pub fn groups(&self) -> impl Iterator<Item = Group<'_>> {
        self.cells.chunk_by(|a, b| (a.suite, a.metric) == (b.suite, b.metric)).map(|cells| {
            let runs = |cells| {
                let run = |cells: &'_ [Cell]| -> u64 { cells[0].seed };
                let by_seed = <[Cell]>::chunk_by(cells, |a: &Cell, b: &Cell| a.seed == b.seed);
                by_seed.map(|cells| Run { seed: run(cells), cells }).collect()
            };
            let by_arm = cells.chunk_by(|a, b| a.arm == b.arm);
            let mut arms: Vec<_> =
                by_arm.map(|cells| (self.arms.names[cells[0].arm as usize], runs(cells))).collect();
            arms.sort_by_key(|(name, _)| *name == BASE_ARM);
            Group {
                suite: self.suites.names[cells[0].suite as usize],
                metric: self.metrics.names[cells[0].metric as usize],
                arms,
                examples: self.examples,
            }
        })
    }

    /// Trained arms: those of the plan, then others in order of first appearance.
    pub fn trained_arms(&self) -> impl Iterator<Item = &str> {
        self.arms.names.iter().copied().filter(|a| *a != BASE_ARM)
    }
}

impl<'t> Group<'t> {
    pub fn arms(&self) -> impl Iterator<Item = &'t str> + '_ {
        self.arms.iter().map(|(name, _)| *name)
    }

    /// The paired design of two arms, over the seeds that both have and the examples that both have under
    /// every one of them; a `base` scored once stands beside every seed. `None`: nothing is common.
    ///
    /// Against itself the base wins one half by definition, so where [`Group::even_base`] says so it has no rows
    /// and stands at 0.5 on every example of the other arm.
    pub fn pair(&self, a: &str, b: &str) -> Option<Pairing> {
        let runs = |name| self.arms.iter().find(|(arm, _)| *arm == name).map(|(_, runs)| runs.as_slice());
        if b == BASE_ARM && self.even_base() {
            let even =
                |run: &Run<'_>| run.cells.iter().map(|c| Cell { value: EVEN, ..*c }).collect::<Vec<_>>();
            let cells: Vec<Vec<Cell>> = runs(a)?.iter().map(even).collect();
            let seeds = runs(a)?.iter().zip(&cells);
            let base: Vec<Run<'_>> = seeds.map(|(r, cells)| Run { seed: r.seed, cells }).collect();
            return self.design((a, runs(a)?), (b, &base));
        }
        self.design((a, runs(a)?), (b, runs(b)?))
    }

    /// Whether this is a win rate against the base, on which the base has no rows of its own.
    pub fn even_base(&self) -> bool {
        self.metric == AGAINST_BASE && !self.arms().any(|a| a == BASE_ARM)
    }

    /// Whether the base has this metric by definition and not by measurement: its implicit reward is 0 on every pair where
    /// it is its own reference.
    pub fn unmeasured_base(&self) -> bool {
        let base = self.arms.iter().filter(|(arm, _)| *arm == BASE_ARM).flat_map(|(_, runs)| runs);
        let mut values = base.flat_map(|run| run.cells).map(|cell| cell.value);
        let first = values.next();
        OF_IMPLICIT_REWARD.contains(&self.metric)
            && first.is_some_and(|first| values.all(|v| (v - first).abs() <= NOISE))
    }

    fn design(&self, a: (&str, &[Run<'_>]), b: (&str, &[Run<'_>])) -> Option<Pairing> {
        let pairs = paired_runs(a, b);
        let sides: Vec<&[Cell]> = pairs.iter().flat_map(|(a, b)| [*a, *b]).collect();
        let mut seen = vec![0u32; self.examples];
        for cell in sides.iter().flat_map(|s| s.iter()) {
            seen[cell.example as usize] += 1;
        }
        let kept = |cell: &&Cell| seen[cell.example as usize] as usize == sides.len();
        let dropped = seen.iter().filter(|n| (1..sides.len()).contains(&(**n as usize))).count();
        let values = |side: &[Cell]| side.iter().filter(kept).map(|c| c.value).collect::<Vec<f64>>();
        let first = sides.first()?;
        let clusters = renumber(first.iter().filter(kept).map(|c| c.cluster));
        let (a, b): (Vec<_>, Vec<_>) = pairs.iter().map(|(a, b)| (values(a), values(b))).unzip();
        Paired::new(&a, &b, &clusters).ok().map(|design| Pairing { design, dropped })
    }
}

/// The runs to set side by side: those with the same seed. A base that was scored once stands beside every seed.
fn paired_runs<'t>(
    (a, runs_a): (&str, &[Run<'t>]),
    (b, runs_b): (&str, &[Run<'t>]),
) -> Vec<(&'t [Cell], &'t [Cell])> {
    let of = |runs: &[Run<'t>], name: &str, seed: u64| {
        let same = runs.iter().find(|r| r.seed == seed);
        same.or_else(|| runs.first().filter(|_| name == BASE_ARM)).map(|r| r.cells)
    };
    let seeds = if a == BASE_ARM { runs_b } else { runs_a };
    seeds.iter().filter_map(|r| Some((of(runs_a, a, r.seed)?, of(runs_b, b, r.seed)?))).collect()
}

/// Numbers 0.. in order of first appearance.
fn renumber(ids: impl Iterator<Item = u32>) -> Vec<usize> {
    let mut map = HashMap::new();
    ids.map(|id| {
        let next = map.len();
        *map.entry(id).or_insert(next)
    })
    .collect()
}
