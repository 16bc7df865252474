//! Metrics by the names that people read: one place for sentences, tables and axes.

/// A metric's name in words: `win_rate_base` → `win rate against base`. An unknown name is read word by word.
pub fn metric_words(name: &str) -> String {
    let known = match name {
        "margin" => "reward margin",
        "logp_accuracy" => "log-prob accuracy",
        "normalised_logp_accuracy" => "length-normalised log-prob accuracy",
        "brier" => "Brier score",
        "chosen_perplexity" => "perplexity of chosen",
        "chosen_bits_per_byte" => "bits per byte of chosen",
        "reward_chosen" => "reward of chosen",
        "label_auc" => "label AUC",
        "reward_desirable" => "reward of desirable",
        "reward_undesirable" => "reward of undesirable",
        "reward_rejected" => "reward of rejected",
        "prompt_strict" => "prompts followed, strict",
        "prompt_loose" => "prompts followed, loose",
        "instruction_strict" => "instructions followed, strict",
        "instruction_loose" => "instructions followed, loose",
        "exact_match_flexible" => "exact match of the last number",
        "unfinished" => "unfinished samples",
        "distinct_1" => "distinct tokens",
        "distinct_2" => "distinct bigrams",
        "repetition" => "repeated 4-grams",
        "kl_sequence" => "KL per sequence",
        "kl_per_token" => "KL per token",
        _ => return read(name),
    };
    known.to_owned()
}

fn read(name: &str) -> String {
    let words = name.replace("win_rate_", "win rate against ").replace('_', " ");
    let word = |w: &str| match w {
        "logp" => "log-prob".to_owned(),
        "logps" => "log-probs".to_owned(),
        "kl" => "KL".to_owned(),
        w => w.to_owned(),
    };
    words.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::metric_words;

    #[test]
    fn metric_names_become_words() {
        assert_eq!(metric_words("win_rate_base"), "win rate against base");
        assert_eq!(metric_words("normalised_logp_accuracy"), "length-normalised log-prob accuracy");
        assert_eq!(metric_words("reward_accuracy"), "reward accuracy");
        assert_eq!(metric_words("kl"), "KL");
        assert_eq!(metric_words("kl_sequence"), "KL per sequence");
    }
}
