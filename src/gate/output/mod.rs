//! Findings in the forms that CI reads: one exporter a file.

mod actions;
mod bencher;
mod benchmark;
mod junit;
mod markdown;

use std::path::Path;

pub use actions::annotations;
pub use bencher::bencher;
pub use benchmark::benchmark;
pub use junit::junit;
pub use markdown::markdown;

use super::finding::Findings;
use crate::base::error::{Context, Result};
use crate::record::Direction;

/// Name of the JSON in a gate's output folder.
pub const JSON: &str = "gate.json";

/// Writes every form into a folder and names the files.
///
/// # Errors
/// A folder that cannot be written to.
pub fn write(dir: &Path, findings: &Findings) -> Result<Vec<&'static str>> {
    std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    let pretty =
        |value: &serde_json::Value| -> Result<String> { Ok(serde_json::to_string_pretty(value)? + "\n") };
    let written = [
        (JSON, pretty(&serde_json::to_value(findings)?)?),
        ("gate.md", markdown(findings)),
        ("junit.xml", junit(findings)),
        ("bigger-is-better.json", pretty(&benchmark(findings, Direction::Higher))?),
        ("smaller-is-better.json", pretty(&benchmark(findings, Direction::Lower))?),
        ("bencher.json", pretty(&bencher(findings))?),
    ];
    for (name, text) in &written {
        let path = dir.join(name);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(written.map(|(name, _)| name).to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::finding::{FORMAT, Finding, Kind};
    use crate::record::Environment;
    use crate::stats::gate::Change;

    fn finding(id: &str, kind: Kind, verdict: Change) -> Finding {
        Finding {
            id: id.to_owned(),
            kind,
            arm: "kto".to_owned(),
            unit: "tokens/s".to_owned(),
            direction: Direction::Higher,
            baseline: Some(1000.0),
            candidate: Some(900.0),
            change: Some(-0.1),
            low: Some(-0.12),
            high: Some(-0.08),
            relative: true,
            tolerance: 0.03,
            verdict,
            spread: Some(0.02),
            degrees_of_freedom: 5,
            words: "throughput of kto: 900 <after> 1000, 10% \"less\" & a | bar\nand a line".to_owned(),
        }
    }

    fn findings() -> Findings {
        let loss = Finding {
            unit: "loss".to_owned(),
            direction: Direction::Lower,
            baseline: None,
            candidate: None,
            ..finding("final-loss/kto", Kind::FinalLoss, Change::Inconclusive)
        };
        let memory = Finding {
            unit: "MiB".to_owned(),
            direction: Direction::Lower,
            ..finding("memory/kto", Kind::Memory, Change::Pass)
        };
        Findings {
            format: FORMAT,
            plan: "ci".to_owned(),
            verdict: Change::Regressed,
            fails: true,
            alarm: 0.007,
            tests: 3,
            baseline: Environment::default(),
            candidate: Environment::default(),
            notes: vec!["threads: 2 | 4".to_owned()],
            findings: vec![finding("throughput/kto", Kind::Throughput, Change::Regressed), memory, loss],
        }
    }

    #[test]
    fn annotations_escape_what_would_end_the_command() {
        let text = annotations(&findings());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].starts_with("::error title=throughput/kto::throughput of kto"), "{text}");
        assert!(lines[0].contains("10%25") && lines[0].ends_with("%0Aand a line"), "{text}");
        assert!(lines[1].starts_with("::notice title=final-loss/kto::"), "{text}");
    }

    #[test]
    fn junit_counts_and_escapes() {
        let text = junit(&findings());
        assert!(text.contains("tests=\"3\" failures=\"1\" errors=\"0\" skipped=\"1\""), "{text}");
        assert!(
            text.contains("900 &lt;after&gt; 1000") && text.contains("&quot;less&quot; &amp; a"),
            "{text}"
        );
        assert!(!text.contains("<after>"));
        assert_eq!(text.matches("<testcase").count(), text.matches("</testcase>").count());
    }

    #[test]
    fn dashboards_get_values_by_direction() {
        let bigger = benchmark(&findings(), Direction::Higher);
        assert_eq!(bigger[0]["name"], "throughput/kto");
        assert_eq!(bigger[0]["value"], 900.0);
        assert_eq!(bigger[0]["unit"], "tokens/s");
        assert_eq!(bigger.as_array().map(Vec::len), Some(1));
        // What was not measured has no value to plot.
        assert_eq!(benchmark(&findings(), Direction::Lower).as_array().map(Vec::len), Some(1));
        let bmf = bencher(&findings());
        assert_eq!(bmf["kto"]["throughput"]["value"], 900.0);
        assert!((bmf["kto"]["throughput"]["lower_value"].as_f64().unwrap() - 880.0).abs() < 1e-9);
        assert!((bmf["kto"]["throughput"]["upper_value"].as_f64().unwrap() - 920.0).abs() < 1e-9);
    }

    #[test]
    fn a_table_in_markdown_keeps_its_columns() {
        let text = markdown(&findings());
        let columns = |line: &str| line.replace("\\|", "").matches('|').count();
        let rows: Vec<&str> = text.lines().filter(|l| l.starts_with('|')).collect();
        assert!(rows.len() == 5 && rows.iter().all(|r| columns(r) == columns(rows[0])), "{text}");
        assert!(text.contains("regressed") && text.contains("threads: 2"), "{text}");
        assert!(text.contains("at most 0.7 %"), "{text}");
    }

    #[test]
    fn what_is_written_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &findings()).unwrap();
        let text = std::fs::read_to_string(dir.path().join(JSON)).unwrap();
        assert_eq!(serde_json::from_str::<Findings>(&text).unwrap(), findings());
    }
}
