//! `--checkpoint-every`.

use clap::Args;

use crate::base::error::{Result, anyhow};
use crate::train::Interval;

#[derive(Clone, Copy, Debug, Args)]
pub struct CheckpointOptions {
    /// Save the run in the middle this often: a time (30s, 5m, 1h), a number of steps, or off
    #[arg(long, value_name = "INTERVAL", default_value = "5m", value_parser = parse)]
    checkpoint_every: Every,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Every {
    Off,
    At(Interval),
}

impl CheckpointOptions {
    /// `None`: never.
    pub fn interval(self) -> Option<Interval> {
        match self.checkpoint_every {
            Every::Off => None,
            Every::At(interval) => Some(interval),
        }
    }

    /// As the option takes it.
    pub fn text(self) -> String {
        match self.checkpoint_every {
            Every::Off => "off".to_owned(),
            Every::At(Interval::Steps(steps)) => steps.to_string(),
            Every::At(Interval::Seconds(seconds)) => format!("{seconds}s"),
        }
    }
}

fn parse(text: &str) -> Result<Every> {
    let wrong = || anyhow!("write a time above 0 such as 30s, 5m or 1h, a number of steps above 0, or off");
    if text == "off" {
        return Ok(Every::Off);
    }
    if let Ok(steps) = text.parse::<u64>() {
        return if steps > 0 { Ok(Every::At(Interval::Steps(steps))) } else { Err(wrong()) };
    }
    let units = [("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let (number, unit) =
        units.iter().find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, unit))).ok_or_else(wrong)?;
    let seconds = number.trim().parse::<f64>().map_err(|_| wrong())? * unit;
    if !(seconds.is_finite() && seconds > 0.0) {
        return Err(wrong());
    }
    Ok(Every::At(Interval::Seconds(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_times_steps_or_off() {
        for (text, every) in [
            ("off", Every::Off),
            ("100", Every::At(Interval::Steps(100))),
            ("30s", Every::At(Interval::Seconds(30.0))),
            ("1.5m", Every::At(Interval::Seconds(90.0))),
            ("2h", Every::At(Interval::Seconds(7200.0))),
        ] {
            let parsed = parse(text).unwrap();
            assert_eq!(parsed, every);
            let options = CheckpointOptions { checkpoint_every: parsed };
            assert_eq!(parse(&options.text()).unwrap(), every);
        }
        for wrong in ["", "0", "0s", "-5", "5x", "nans", "infm", "1e400s"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
