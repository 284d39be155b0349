//! A time of each day, `22:00-06:00`: whether it is now. What does not belong here: clocks and time zones.

/// Minutes of a day.
const DAY: u16 = 24 * 60;

/// From one minute of the day up to another, over midnight when that is earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its first minute, 0 to 1439.
    pub from: u16,
    /// The minute behind its last one.
    pub to: u16,
}

impl Window {
    /// Reads `HH:MM-HH:MM`; `None` when that is no time, or two times the same.
    pub fn parse(text: &str) -> Option<Self> {
        let (from, to) = text.split_once('-')?;
        let (from, to) = (minute(from)?, minute(to)?);
        (from != to && from < DAY).then_some(Self { from, to: to % DAY })
    }

    /// Whether a minute of the day is in it.
    pub fn contains(&self, minute: u16) -> bool {
        match self.from < self.to {
            true => (self.from..self.to).contains(&minute),
            false => minute >= self.from || minute < self.to,
        }
    }
}

/// `HH:MM`, 00:00 to 24:00.
fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str| text.parse::<u16>().ok().filter(|_| text.len() == 2 && !text.starts_with('+'));
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (minutes < 60 && hours * 60 + minutes <= DAY).then_some(hours * 60 + minutes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_read_and_may_pass_midnight() {
        let night = Window::parse("22:00-06:30").unwrap();
        assert_eq!(night, Window { from: 1_320, to: 390 });
        assert!([1_320, 1_439, 0, 389].iter().all(|minute| night.contains(*minute)));
        assert!(![390, 720, 1_319].iter().any(|minute| night.contains(*minute)));
        let evening = Window::parse("18:00-24:00").unwrap();
        assert!(evening.contains(1_439) && !evening.contains(0) && !evening.contains(1_079));
        let day = Window::parse("09:00-17:00").unwrap();
        assert!(day.contains(540) && !day.contains(1_020) && !day.contains(0));
        for wrong in
            ["", "22-6", "22:00", "22:00-25:00", "22:60-06:00", "24:00-06:00", "06:00-06:00", "+2:00-06:00", "a:b-c:d"]
        {
            assert_eq!(Window::parse(wrong), None, "{wrong}");
        }
    }
}
