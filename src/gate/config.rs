//! `gate.toml`: the tolerances, stated before anything is measured.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::base::error::{Context, HintExt, Result, anyhow};
use crate::stats::gate::ALARM;

/// Tolerances of a gate. Every key has a default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Chance of any false alarm in a whole gate where nothing has changed, in (0, 0.5).
    pub alarm: f64,
    /// What a metric that the measurement cannot decide does to the exit code.
    pub inconclusive: Undecided,
    pub quality: Quality,
    pub final_loss: Tolerance,
    pub trajectory: Trajectory,
    pub throughput: Tolerance,
    pub memory: Tolerance,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Undecided {
    /// Said, with exit code 0: noise alone never fails a build.
    Warn,
    /// Exit code 1.
    Fail,
}

/// Scores on held-out suites.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quality {
    pub enabled: bool,
    /// Loss that is put up with, in the metric's own unit (0.02: two points of accuracy).
    pub tolerance: f64,
    /// Metrics to gate; empty: those that the baseline's plan names in `verdict.primary`.
    pub metrics: Vec<String>,
    /// Tolerances of single metrics, by name.
    pub tolerances: BTreeMap<String, f64>,
}

/// A relative tolerance (0.05: 5 %).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tolerance {
    pub enabled: bool,
    pub tolerance: f64,
}

/// Residuals over the first steps, two-sided.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trajectory {
    pub enabled: bool,
    /// Steps compared, from the first.
    pub steps: usize,
    /// Largest residual of a step, in standard deviations of the baseline's trajectory.
    pub max: f64,
    /// Mean residual over the steps, in the same unit.
    pub mean: f64,
    /// Largest relative residual of what is counted (tokens, completions of each class).
    pub counts: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            alarm: ALARM,
            inconclusive: Undecided::Warn,
            quality: Quality::default(),
            final_loss: Tolerance { enabled: true, tolerance: 0.02 },
            trajectory: Trajectory::default(),
            throughput: Tolerance { enabled: true, tolerance: 0.05 },
            memory: Tolerance { enabled: true, tolerance: 0.05 },
        }
    }
}

impl Default for Quality {
    fn default() -> Self {
        Self { enabled: true, tolerance: 0.02, metrics: vec![], tolerances: BTreeMap::new() }
    }
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { enabled: true, tolerance: 0.05 }
    }
}

impl Default for Trajectory {
    fn default() -> Self {
        Self { enabled: true, steps: 50, max: 0.5, mean: 0.1, counts: 0.0 }
    }
}

impl Config {
    /// Reads a gate file.
    ///
    /// # Errors
    /// With path and line: TOML that does not parse, unknown keys, values outside their range.
    pub fn open(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("reading {}", path.display()))
            .hint("`kto-eval init` writes a gate file; without --config the defaults hold")?;
        Self::parse(&text, &path.display().to_string())
    }

    /// As [`Config::open`]; `origin` stands in messages.
    ///
    /// # Errors
    /// See [`Config::open`].
    pub fn parse(text: &str, origin: &str) -> Result<Self> {
        let config: Self = toml::from_str(text).map_err(|e| {
            let line = e.span().map(|s| 1 + text[..s.start.min(text.len())].matches('\n').count());
            let line = line.map(|l| format!(":{l}")).unwrap_or_default();
            anyhow!("{origin}{line}: {}", e.message().trim_end().replace('\n', " "))
        })?;
        config.check(origin)?;
        Ok(config)
    }

    fn check(&self, origin: &str) -> Result<()> {
        if !(self.alarm > 0.0 && self.alarm < 0.5) {
            return Err(anyhow!("{origin}: `alarm` is {}; it must lie between 0 and 0.5", self.alarm));
        }
        let single = self.quality.tolerances.iter().map(|(k, v)| (format!("quality.tolerances.{k}"), *v));
        let all = [
            ("quality.tolerance", self.quality.tolerance),
            ("final_loss.tolerance", self.final_loss.tolerance),
            ("throughput.tolerance", self.throughput.tolerance),
            ("memory.tolerance", self.memory.tolerance),
            ("trajectory.max", self.trajectory.max),
            ("trajectory.mean", self.trajectory.mean),
            ("trajectory.counts", self.trajectory.counts),
        ];
        for (key, value) in all.into_iter().map(|(k, v)| (k.to_owned(), v)).chain(single) {
            if !(value.is_finite() && value >= 0.0) {
                return Err(anyhow!("{origin}: `{key}` is {value}; it must be a finite number, 0 or above"));
            }
        }
        if self.trajectory.steps == 0 {
            return Err(anyhow!("{origin}: `trajectory.steps` is 0; it must be at least 1"))
                .hint("`trajectory.enabled = false` leaves trajectories out");
        }
        Ok(())
    }

    /// Tolerance of a quality metric.
    pub fn quality_tolerance(&self, metric: &str) -> f64 {
        self.quality.tolerances.get(metric).copied().unwrap_or(self.quality.tolerance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::render;

    #[test]
    fn what_is_not_said_is_default_and_what_is_wrong_has_its_line() {
        let given = Config::parse("[throughput]\ntolerance = 0.1\n", "gate.toml").unwrap();
        assert_eq!(given.throughput, Tolerance { enabled: true, tolerance: 0.1 });
        assert_eq!(given.memory, Config::default().memory);
        let written = toml::to_string(&Config::default()).unwrap();
        assert_eq!(Config::parse(&written, "x").unwrap(), Config::default());
        for (text, says) in [
            ("[throughput]\ntolerence = 0.1\n", "gate.toml:2: unknown field `tolerence`"),
            ("alarm = 0.7\n", "`alarm` is 0.7; it must lie between 0 and 0.5"),
            ("[memory]\ntolerance = -1.0\n", "`memory.tolerance` is -1"),
            ("[trajectory]\nsteps = 0\n", "`trajectory.steps` is 0"),
            ("inconclusive = \"maybe\"\n", "gate.toml:1: unknown variant `maybe`"),
            ("[quality]\ntolerances = { margin = nan }\n", "`quality.tolerances.margin` is NaN"),
        ] {
            let error = render(&Config::parse(text, "gate.toml").unwrap_err());
            assert!(error.contains(says), "{error}");
        }
    }
}
