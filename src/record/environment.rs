//! `environment.json`: where and on what the rows were made.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::schema::SCHEMA_VERSION;

/// The machine, the program, and hashes of everything that went in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Environment {
    /// [`SCHEMA_VERSION`] of the rows.
    pub schema: u32,
    /// Version of this crate.
    pub version: String,
    /// Commit that the program was built from, with `-dirty` where its sources were changed; empty: unknown.
    pub commit: String,
    pub os: String,
    pub cpu: String,
    pub threads: usize,
    /// `cpu`, `cuda:0`, …
    pub device: String,
    pub plan: String,
    /// Content hashes, hex; empty: not known (rows of another trainer).
    pub plan_hash: String,
    pub data_hash: String,
    pub model_hash: String,
    pub reference_hash: String,
    /// How much of each suite the training prompts hold.
    pub contamination: Vec<Overlap>,
    /// When the folder was begun, ISO 8601, UTC.
    pub started: String,
    /// Whether `samples.jsonl` still holds its texts.
    #[serde(skip_serializing_if = "Texts::are_here")]
    pub texts: Texts,
}

/// Prompts and completions in a record folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Texts {
    #[default]
    Here,
    /// A copy that was made to be passed on: see [`super::withhold_texts`].
    Withheld,
}

impl Texts {
    fn are_here(&self) -> bool {
        *self == Self::Here
    }
}

/// Prompts of a suite that stand in the training data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Overlap {
    pub suite: String,
    pub prompts: usize,
    /// Word for word.
    pub identical: usize,
    /// With `words` words in a row, identical ones included.
    pub overlapping: usize,
    pub words: usize,
}

impl std::fmt::Display for Overlap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { suite, prompts, identical, overlapping, words } = self;
        let share = 100.0 * *overlapping as f64 / (*prompts).max(1) as f64;
        write!(
            f,
            "{suite}: {overlapping} of {prompts} prompts ({share:.1} %) share {words} words in a row with a training \
             prompt, {identical} are identical"
        )
    }
}

impl Default for Environment {
    fn default() -> Self {
        let empty = String::new;
        Self {
            schema: SCHEMA_VERSION,
            version: empty(),
            commit: empty(),
            os: empty(),
            cpu: empty(),
            threads: 0,
            device: empty(),
            plan: empty(),
            plan_hash: empty(),
            data_hash: empty(),
            model_hash: empty(),
            reference_hash: empty(),
            contamination: vec![],
            started: empty(),
            texts: Texts::Here,
        }
    }
}

impl Environment {
    /// This program on this machine, now. The hashes are left for whoever reads what is hashed.
    pub fn here(device: &str, threads: usize) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            // Of the build, whatever the checkout has become since: build.rs.
            commit: env!("KTO_EVAL_COMMIT").to_owned(),
            os: os(),
            cpu: cpu(),
            threads,
            device: device.to_owned(),
            started: iso_8601(SystemTime::now()),
            ..Self::default()
        }
    }

    /// The kind of device: which card of one machine it was changes nothing.
    pub fn device_class(&self) -> &str {
        self.device.split(':').next().unwrap_or_default()
    }
}

fn os() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} {} {}", std::env::consts::OS, release.trim(), std::env::consts::ARCH).replace("  ", " ")
}

fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find(|l| l.starts_with("model name")).and_then(|l| l.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

/// `2026-01-31T12:00:00Z`. Days to civil date after Hinnant, "chrono-compatible low-level date algorithms".
fn iso_8601(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}Z", second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_civil() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(iso_8601(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
