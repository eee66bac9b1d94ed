//! Points in time.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use utoipa::ToSchema;

/// Last millisecond that RFC 3339 can write: the end of the year 9999.
const MILLIS_MAX: u64 = 253_402_300_799_999;

/// A point in time, RFC 3339; the server tells it in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
#[schema(value_type = String, format = DateTime, example = "2026-11-21T09:30:00.000Z")]
pub struct Timestamp(
    /// Milliseconds since 1970.
    pub u64,
);

impl Timestamp {
    /// The machine's time.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = UNIX_EPOCH + Duration::from_millis(self.0.min(MILLIS_MAX));
        humantime::format_rfc3339_millis(time).fmt(f)
    }
}

impl std::str::FromStr for Timestamp {
    type Err = humantime::TimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (utc, offset_ms) = split_offset(text);
        let time = humantime::parse_rfc3339(&utc)?;
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        Ok(Self(ms.saturating_sub(offset_ms).try_into().unwrap_or(0)))
    }
}

/// The time as it would read in UTC, and how far it is ahead of that.
fn split_offset(text: &str) -> (String, i64) {
    const MINUTE_MS: i64 = 60_000;
    let whole = || (text.to_owned(), 0);
    let Some((time, offset)) = text.split_at_checked(text.len().saturating_sub("+00:00".len()))
    else {
        return whole();
    };
    let sign = match offset.as_bytes() {
        [b'+', _, _, b':', _, _] => 1,
        [b'-', _, _, b':', _, _] => -1,
        _ => return whole(),
    };
    match (offset[1..3].parse::<u8>(), offset[4..].parse::<u8>()) {
        (Ok(hours @ 0..24), Ok(minutes @ 0..60)) => {
            let minutes = i64::from(hours) * 60 + i64::from(minutes);
            (format!("{time}Z"), sign * minutes * MINUTE_MS)
        }
        _ => whole(),
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_travel_as_rfc_3339() {
        fn check(ms: u64, text: &str) {
            assert_eq!(Timestamp(ms).to_string(), text);
            assert_eq!(text.parse(), Ok(Timestamp(ms)));
        }
        check(0, "1970-01-01T00:00:00.000Z");
        check(1_795_253_400_123, "2026-11-21T09:30:00.123Z");
        check(MILLIS_MAX, "9999-12-31T23:59:59.999Z");
        let noon = "2026-11-21T12:00:00Z".parse::<Timestamp>();
        assert_eq!("2026-11-21T14:00:00.000000+02:00".parse(), noon);
        assert_eq!("2026-11-21T08:30:00-03:30".parse(), noon);
        assert_eq!("1970-01-01T00:00:00+02:00".parse(), Ok(Timestamp(0)));
        assert_eq!(
            Timestamp(u64::MAX).to_string(),
            Timestamp(MILLIS_MAX).to_string()
        );
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "now",
            "é",
            "2026-11-21",
            "2026-13-01T00:00:00Z",
            "2026-11-21T12:00:00+24:00",
            "2026-11-21T12:00:00 00:00",
            "2026-11-21T12:00:00+é:0",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }
}
