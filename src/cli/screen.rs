//! What a person sees while the work goes on: bars on a terminal, a line every few seconds elsewhere.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::tensorboard::Events;
use crate::base::error::{Result, render};
use crate::launch::Observer;
use crate::plan::RunSpec;
use crate::record::{RunRow, ScoreRow, Status, StepRow};
use crate::train::Progress;

/// Time between two lines where there is no terminal.
const EVERY: Duration = Duration::from_secs(5);
/// Units of a bar.
const UNITS: u64 = 1000;

/// Draws the work on stderr.
pub struct Screen {
    quiet: bool,
    bars: Option<Bars>,
    label: String,
    /// When the present run or stage began.
    began: Instant,
    spoke: Instant,
    whole: Whole,
    /// Reward margin of the last step, for methods that have one.
    margin: Option<f64>,
    /// When the reference was last heard of, before the run's first update.
    asked: Option<Instant>,
    events: Option<Events>,
}

struct Bars {
    all: MultiProgress,
    whole: ProgressBar,
    part: ProgressBar,
}

/// All runs together, for the time left.
#[derive(Clone, Copy, Debug)]
struct Whole {
    started: Instant,
    runs: usize,
    /// Runs that this process began with: an earlier one did those before.
    first: Option<usize>,
    done: usize,
}

impl Whole {
    /// Seconds left, once a twentieth of a run is done.
    fn left(&self, fraction: f64) -> Option<f64> {
        let done = self.done.saturating_sub(self.first?) as f64 + fraction;
        let rest = self.runs as f64 - self.done as f64 - fraction;
        (done > 0.05).then(|| self.started.elapsed().as_secs_f64() * rest / done)
    }

    /// What was done so far says nothing of the speed of what comes, where no run has ended.
    fn starts_over(&mut self, at: Instant) {
        if self.first == Some(self.done) {
            self.started = at;
        }
    }

    /// Run `index` of `total` begins. Where it is not one after the last, the runs are others: after tuning, say.
    fn begins(&mut self, index: usize, total: usize) {
        if self.first.is_none() || index < self.done || total != self.runs {
            (self.first, self.started) = (Some(index), Instant::now());
        }
        (self.runs, self.done) = (total, index);
    }
}

impl Screen {
    pub fn new(quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal() && !quiet;
        let now = Instant::now();
        Self {
            quiet,
            bars: terminal.then(Bars::new),
            label: String::new(),
            began: now,
            spoke: now,
            whole: Whole { started: now, runs: 0, first: None, done: 0 },
            margin: None,
            asked: None,
            events: None,
        }
    }

    /// Writes TensorBoard events to this folder too.
    pub fn events(self, dir: Option<PathBuf>) -> Self {
        Self { events: dir.map(Events::new), ..self }
    }

    /// Events are for looking at: where they cannot be written, the work goes on without them.
    fn tell(&mut self, told: impl FnOnce(&mut Events) -> Result<()>) {
        if let Some(Err(error)) = self.events.as_mut().map(told) {
            self.events = None;
            self.say(&format!("no TensorBoard events from here on: {}", render(&error)));
        }
    }

    /// A line of news.
    pub fn say(&self, line: &str) {
        match &self.bars {
            _ if self.quiet => {}
            Some(bars) => bars.all.println(line).unwrap_or_default(),
            // A closed stderr is no reason to stop working.
            None => writeln!(std::io::stderr(), "{line}").unwrap_or_default(),
        }
    }

    /// Takes the bars away.
    pub fn end(&mut self) {
        if let Some(bars) = self.bars.take() {
            bars.part.finish_and_clear();
            bars.whole.finish_and_clear();
        }
    }

    /// `part` of the present bar, `fraction` of the present run.
    fn show(&mut self, part: f64, fraction: f64, message: &str) {
        let left = self.whole.left(fraction).map(|s| format!("all: {} left", clock(s))).unwrap_or_default();
        if let Some(bars) = &self.bars {
            bars.part.set_position((part * UNITS as f64) as u64);
            bars.part.set_message(message.to_owned());
            bars.whole.set_position(((self.whole.done as f64 + fraction) * UNITS as f64) as u64);
            bars.whole.set_message(left);
        } else if self.spoke.elapsed() >= EVERY {
            self.spoke = Instant::now();
            let left = if left.is_empty() { left } else { format!(", {left}") };
            self.say(&format!("{}: {:.0} %, {message}{left}", self.label, 100.0 * part));
        }
    }

    fn begin(&mut self, label: String) {
        self.began = Instant::now();
        if let Some(bars) = &self.bars {
            bars.part.set_prefix(label.clone());
            bars.part.set_position(0);
            bars.part.set_message("");
        }
        self.label = label;
    }
}

impl Bars {
    fn new() -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        let bar = |units| {
            let bar = all.add(ProgressBar::new(units));
            let style = ProgressStyle::with_template("{prefix:<36} {bar:20} {percent:>3} %  {msg}");
            bar.set_style(style.expect("the template is a constant").progress_chars("━╸ "));
            bar
        };
        let (part, whole) = (bar(UNITS), bar(UNITS));
        Self { all, whole, part }
    }
}

impl Observer for Screen {
    fn stage(&mut self, what: &str) {
        // Scoring belongs to a run and has its bar; a line for it would be noise on a terminal.
        if self.bars.is_none() {
            self.say(what);
        }
        self.begin(what.to_owned());
    }

    fn note(&mut self, text: &str) {
        self.say(&format!("  {text}"));
    }

    fn run_begins(&mut self, run: &RunSpec, index: usize, total: usize) {
        self.whole.begins(index, total);
        if let Some(bars) = &self.bars {
            bars.whole.set_length(total as u64 * UNITS);
            bars.whole.set_prefix(format!("run {} of {total}", index + 1));
        }
        self.margin = None;
        if let Some(events) = &mut self.events {
            events.begin(&run.id);
        }
        self.begin(format!("[{}/{total}] {}", index + 1, run.id));
    }

    fn step(&mut self, row: &StepRow) {
        self.margin = row.margin;
        self.tell(|events| events.step(row));
    }

    fn scored(&mut self, rows: &[ScoreRow]) {
        self.tell(|events| events.scored(rows));
    }

    fn training(&mut self, progress: Progress) {
        if let Some(asked) = self.asked.take().filter(|_| !progress.asking) {
            // Steps have a speed of their own.
            self.began = asked;
            self.whole.starts_over(asked);
        }
        let seconds = self.began.elapsed().as_secs_f64().max(1e-9);
        let rate = thousands(progress.policy_tokens as f64 / seconds);
        if progress.asking {
            self.asked = Some(Instant::now());
            return self.show(progress.fraction, 0.0, &format!("reference log-probs, {rate} tokens/s"));
        }
        let margin = self.margin.map(|m| format!(", margin {m:.3}")).unwrap_or_default();
        let left = run_left(seconds, progress.fraction).map(|s| format!(", {} left", clock(s)));
        let (step, loss, left) = (progress.step, progress.loss, left.unwrap_or_default());
        self.show(
            progress.fraction,
            progress.fraction,
            &format!("step {step}, loss {loss:.4}{margin}, {rate} tokens/s{left}"),
        );
    }

    fn run_ends(&mut self, row: &RunRow) {
        self.whole.done += 1;
        let (rate, seconds) = (thousands(row.tokens_per_second), row.train_seconds + row.score_seconds);
        let said = match row.status {
            Status::Done => format!("loss {:.4} after {} steps, {rate} tokens/s", row.final_loss, row.steps),
            Status::Diverged => format!("diverged: {}", row.note),
            Status::Failed => format!("failed: {}", row.note),
        };
        let place = format!("[{}/{}]", self.whole.done, self.whole.runs);
        self.say(&format!("{place} {}: {said} ({})", row.run, clock(seconds)));
    }
}

/// Seconds until the run under way has spent its budget, once a fiftieth of it is spent.
fn run_left(seconds: f64, fraction: f64) -> Option<f64> {
    (fraction > 0.02).then(|| seconds * (1.0 - fraction) / fraction)
}

/// `1:05`, `2:00:00`.
pub fn clock(seconds: f64) -> String {
    let s = seconds.round() as u64;
    match s / 3600 {
        0 => format!("{}:{:02}", s / 60, s % 60),
        hours => format!("{hours}:{:02}:{:02}", s / 60 % 60, s % 60),
    }
}

/// `950`, `12.3k`.
fn thousands(x: f64) -> String {
    if x < 10_000.0 { format!("{x:.0}") } else { format!("{:.1}k", x / 1000.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_rates_are_short() {
        assert_eq!([clock(4.6), clock(65.0), clock(7201.0)], ["0:05", "1:05", "2:00:01"]);
        assert_eq!([thousands(950.4), thousands(12_340.0)], ["950", "12.3k"]);
    }

    #[test]
    fn the_time_left_of_a_run_comes_from_its_own_speed() {
        assert_eq!(run_left(1.0, 0.01), None);
        assert!((run_left(10.0, 0.25).expect("a quarter is done") - 30.0).abs() < 1e-9);
    }

    #[test]
    fn what_an_earlier_process_did_does_not_count_as_speed() {
        let started = Instant::now() - Duration::from_secs(10);
        let whole = Whole { started, runs: 4, first: Some(2), done: 2 };
        assert_eq!(whole.left(0.0), None);
        let left = whole.left(0.5).expect("half a run is done");
        assert!((left - 30.0).abs() < 1.0, "{left}");
    }

    #[test]
    fn the_time_that_the_reference_took_is_not_that_of_steps() {
        let at = |seconds| Instant::now() - Duration::from_secs(seconds);
        let mut whole = Whole { started: at(600), runs: 1, first: Some(0), done: 0 };
        whole.starts_over(at(10));
        let left = whole.left(0.5).expect("half a run is done");
        assert!((left - 10.0).abs() < 1.0, "{left}");
        let mut later = Whole { started: at(600), runs: 4, first: Some(0), done: 2 };
        later.starts_over(at(10));
        assert!(later.left(0.5).expect("two runs are done") > 100.0, "runs that ended say more");
    }

    #[test]
    fn the_time_of_trials_is_not_that_of_runs() {
        let started = Instant::now() - Duration::from_secs(3600);
        for runs in [4, 12] {
            // Tuning that went on at trial 9 of 12, and then the first run.
            let mut whole = Whole { started, runs: 12, first: Some(9), done: 12 };
            whole.begins(0, runs);
            assert_eq!((whole.first, whole.done, whole.runs), (Some(0), 0, runs));
            assert!(whole.left(0.5).expect("half a run is done") < 60.0);
            whole.begins(1, runs);
            assert_eq!(whole.first, Some(0));
        }
    }
}
