//! What types cannot say of a suite: settings that contradict each other, or that nothing would read.

use super::definition::{Columns, JudgeKind, Kind, OpponentKind, PairTemplates, Suite};
use super::judge::ExactMatch;
use super::metric::{METRICS, Metric};
use super::rows::check_template;
use crate::base::error::{Result, anyhow, ensure};
use crate::model::generate::Decoding;
use crate::plan::DataFormat;

impl Suite {
    pub(super) fn check(&self) -> Result<()> {
        let name_ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        ensure!(
            !self.name.is_empty() && self.name.chars().all(name_ok),
            "name: lower-case letters, digits and `-`"
        );
        for (key, value) in [("analysis", &self.analysis), ("licence", &self.licence), ("size", &self.size)] {
            ensure!(
                !value.trim().is_empty(),
                "`{key}` is empty: a suite says why it is there and what it holds"
            );
        }
        ensure!(!self.source.is_empty(), "`source` is empty (plan, world, a hub id, or a path)");
        ensure!(!self.metrics.is_empty(), "`metrics` is empty (known: {})", known(self.kind));
        for (i, metric) in self.metrics.iter().enumerate() {
            let name = metric.name();
            ensure!(
                metric.info().kind == self.kind,
                "`{name}` is no metric of this kind (known: {})",
                known(self.kind)
            );
            ensure!(!self.metrics[..i].contains(metric), "metric `{name}` is listed twice");
        }
        match self.kind {
            Kind::Preference => self.check_preference(),
            Kind::Labels => self.check_labels(),
            Kind::Generation => self.check_generation(),
        }
    }

    fn check_preference(&self) -> Result<()> {
        let generates =
            self.judge != JudgeKind::None || !self.opponents.is_empty() || self.few_shot.is_some();
        ensure!(!generates, "a preference suite takes no judge, opponents or few_shot: nothing is sampled");
        let sampling = [
            ("answer", self.answer.is_some()),
            ("decoding", self.decoding != Decoding::default()),
            ("reward_model", !self.reward_model.is_empty()),
        ];
        unread(&sampling, "belongs to a generation suite: nothing is sampled or judged here")?;
        unread(&self.sets_prompt(), "belongs to a generation suite: `[pair]` makes pairs of rows")?;
        if let Some(PairTemplates { prompt, chosen, rejected, subset }) = &self.pair {
            unread(&[self.sets_format()], "stands beside `[pair]`, which reads the rows itself")?;
            [prompt, chosen, rejected, subset].into_iter().try_for_each(|t| check_template(t))?;
        }
        for (section, subsets) in &self.sections {
            ensure!(!subsets.is_empty(), "section `{section}` names no subset");
            let positive = subsets.values().all(|w| w.is_finite() && *w > 0.0);
            ensure!(positive, "section `{section}` has a weight that is not positive");
        }
        Ok(())
    }

    fn check_labels(&self) -> Result<()> {
        ensure!(
            self.sections.is_empty() && self.pair.is_none(),
            "sections and pair belong to preference suites"
        );
        self.check_preference()
    }

    fn check_generation(&self) -> Result<()> {
        ensure!(
            self.sections.is_empty() && self.pair.is_none(),
            "sections and pair belong to preference suites"
        );
        let exact = self.judge == JudgeKind::ExactMatch;
        ensure!(exact == self.answer.is_some(), "`answer` and judge `exact-match` belong together");
        ensure!(
            self.reward_model.is_empty() || self.judge == JudgeKind::RewardModel,
            "`reward_model` belongs to judge `reward-model`"
        );
        unread(&[self.sets_format()], "belongs to a preference suite: `columns` says what a row holds")?;
        let own = !["plan", "world"].contains(&self.source.as_str());
        if !own {
            let why = "is for rows of the suite's own: with `source` plan or world the prompts are those of the data";
            unread(&self.sets_prompt(), why)?;
            unread(&[("few_shot", self.few_shot.is_some())], why)?;
        }
        let compared = exact || self.opponents.contains(&OpponentKind::Chosen);
        ensure!(
            !own || !compared || !self.columns.answer.is_empty(),
            "`columns.answer` is not set: it names the column of the reference answer, which judge `exact-match` and \
             the opponent `chosen` need"
        );
        if let Some(rule) = &self.answer {
            ExactMatch::new(rule)?;
        }
        let solved = self.few_shot.as_ref().map(|few| &few.template);
        [&self.template].into_iter().chain(solved).try_for_each(|t| check_template(t))?;
        self.decoding.check()?;
        for metric in &self.metrics {
            let (name, needed) = (metric.name(), needs(*metric));
            ensure!(
                needed.is_empty() || needed.contains(&self.judge),
                "metric `{name}` needs judge {needed:?}"
            );
        }
        for metric in [OpponentKind::Base, OpponentKind::Chosen] {
            let asked = self.metrics.contains(&metric.win_rate());
            ensure!(
                !asked || self.opponents.contains(&metric),
                "metric `{}` needs `{}` among the opponents",
                metric.win_rate().name(),
                metric.name()
            );
        }
        ensure!(
            self.opponents.is_empty() || COMPARING.contains(&self.judge),
            "opponents need a judge that compares completions (gold, llm or reward-model)"
        );
        Ok(())
    }

    fn sets_format(&self) -> (&'static str, bool) {
        ("format", self.format != DataFormat::Auto)
    }

    /// The keys that say how a row becomes a prompt, and whether they are set.
    fn sets_prompt(&self) -> [(&'static str, bool); 3] {
        [
            ("chat", self.chat),
            ("columns", self.columns != Columns::default()),
            ("template", !self.template.is_empty()),
        ]
    }
}

/// # Errors
/// A key that is set, and that nothing would read.
fn unread(keys: &[(&str, bool)], why: &str) -> Result<()> {
    match keys.iter().find(|(_, set)| *set) {
        Some((key, _)) => Err(anyhow!("`{key}` {why}")),
        None => Ok(()),
    }
}

/// The judges that compare completions.
const COMPARING: &[JudgeKind] = &[JudgeKind::Gold, JudgeKind::Llm, JudgeKind::RewardModel];

/// The judges that give a metric; empty: it needs none.
fn needs(metric: Metric) -> &'static [JudgeKind] {
    match metric {
        Metric::GoldReward => &[JudgeKind::Gold],
        Metric::JudgeReward => &[JudgeKind::RewardModel],
        Metric::WinRateBase | Metric::WinRateChosen => COMPARING,
        Metric::FlipRate => &[JudgeKind::Llm],
        Metric::InvalidJudgments => &[JudgeKind::Llm, JudgeKind::RewardModel],
        Metric::ExactMatch | Metric::ExactMatchFlexible => &[JudgeKind::ExactMatch],
        Metric::PromptStrict | Metric::PromptLoose | Metric::InstructionStrict | Metric::InstructionLoose => {
            &[JudgeKind::Checks]
        }
        _ => &[],
    }
}

fn known(kind: Kind) -> String {
    METRICS.iter().filter(|m| m.kind == kind).map(|m| m.name).collect::<Vec<_>>().join(", ")
}
