//! `camagentd doctor`: what the examination of `camagent-core` finds, as lines for people or as one JSON object.

use std::path::Path;

use camagent_core::{Check, Examination, SOFTWARE, Verdict, checks_to_json, examine};

use crate::{load, say};

/// Examines and prints; whether nothing failed.
pub(crate) fn run(file: &Path, how: Examination, as_json: bool) -> Result<bool, String> {
    let mut shown = Shown { as_json, checks: Vec::new(), trouble: Ok(()) };
    let config = match load(file) {
        Ok(config) => config,
        Err(error) => {
            shown.tell(&Check {
                id: "configuration",
                subject: String::new(),
                verdict: Verdict::Fail,
                measured: error,
                advice: "nothing else can be looked at; `camagentd --check-config` reads only the file".into(),
            });
            shown.end("?")?;
            return Ok(false);
        }
    };
    let worst = examine(&config, how, |check| shown.tell(check)).map_err(|error| error.to_string())?;
    shown.end(&config.agent_id)?;
    Ok(worst != Verdict::Fail)
}

struct Shown {
    as_json: bool,
    checks: Vec<Check>,
    /// That standard output is gone does not stop an examination; it is said at its end.
    trouble: Result<(), String>,
}

impl Shown {
    fn tell(&mut self, check: &Check) {
        if !self.as_json {
            self.trouble = std::mem::replace(&mut self.trouble, Ok(())).and_then(|()| say(&line(check)));
        }
        self.checks.push(check.clone());
    }

    fn end(self, agent: &str) -> Result<(), String> {
        self.trouble?;
        if self.as_json {
            return say(&format!("{}\n", checks_to_json(agent, &self.checks)));
        }
        let count = |verdict| self.checks.iter().filter(|check| check.verdict == verdict).count();
        let (failed, warned, skipped) = (count(Verdict::Fail), count(Verdict::Warn), count(Verdict::Skip));
        say(&format!(
            "{SOFTWARE}: {} steps, {failed} failed, {warned} with a warning, {skipped} not looked at\n",
            self.checks.len()
        ))
    }
}

/// A step on one line, its advice on a second one.
fn line(check: &Check) -> String {
    let verdict = match check.verdict {
        Verdict::Ok => "ok",
        Verdict::Skip => "--",
        Verdict::Warn => "WARN",
        Verdict::Fail => "FAIL",
    };
    let what = if check.subject.is_empty() { check.id.to_owned() } else { format!("{} {}", check.id, check.subject) };
    let mut text = format!("{verdict:<4}  {what:<13}  {}\n", check.measured);
    if !check.advice.is_empty() {
        text.push_str(&format!("      -> {}\n", check.advice));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_a_line_and_its_advice_another() {
        let mut check = Check {
            id: "tcp",
            subject: String::new(),
            verdict: Verdict::Ok,
            measured: "connected".into(),
            advice: String::new(),
        };
        assert_eq!(line(&check), "ok    tcp            connected\n");
        check.subject = "gate/http".into();
        check.verdict = Verdict::Fail;
        check.advice = "switch it on".into();
        assert_eq!(line(&check), "FAIL  tcp gate/http  connected\n      -> switch it on\n");
    }
}
