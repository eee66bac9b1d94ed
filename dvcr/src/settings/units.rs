//! Amounts as people write them: `256 MiB`, `24h`.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A number of bytes. Written as a whole number with a unit, of powers of 1,024 (`KiB` to `TiB`) or of 1,000 (`kB` to `TB`),
/// or without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl Bytes {
    /// 2^10 bytes, times `n`.
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// 2^20 bytes, times `n`.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// 2^30 bytes, times `n`.
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }

    /// 2^40 bytes, times `n`.
    pub const fn tib(n: u64) -> Self {
        Self(n << 40)
    }

    /// As a size of memory.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// Units, largest first; the binary ones are those that `Display` uses.
const BYTE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, scale) = BYTE_UNITS[..4]
            .iter()
            .find(|(_, scale)| self.0 > 0 && self.0.is_multiple_of(*scale))
            .unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / scale)
    }
}

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        amount(text, &BYTE_UNITS, Some("B"))
            .map(Self)
            .ok_or_else(|| {
                format!("{text:?} is no number of bytes: write for example 256MiB, 10GB or 4096")
            })
    }
}

/// A span of time, in whole milliseconds. Written `500ms`, `30s`, `15m`, `24h` or `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Duration);

impl Time {
    /// So many milliseconds.
    pub const fn millis(n: u64) -> Self {
        Self(Duration::from_millis(n))
    }

    /// So many seconds.
    pub const fn seconds(n: u64) -> Self {
        Self(Duration::from_secs(n))
    }

    /// So many hours.
    pub const fn hours(n: u64) -> Self {
        Self::seconds(n * 3_600)
    }
}

/// Units in milliseconds, largest first.
const TIME_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        let (unit, scale) = TIME_UNITS
            .iter()
            // 24h says more than 1d.
            .find(|(unit, scale)| *unit != "d" && millis > 0 && millis.is_multiple_of(*scale))
            .unwrap_or(&("s", 1_000));
        write!(f, "{}{unit}", millis / scale)
    }
}

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        amount(text, &TIME_UNITS, None)
            .map(Self::millis)
            .ok_or_else(|| {
                format!("{text:?} is no span of time: write for example 500ms, 30s, 15m or 24h")
            })
    }
}

/// Reads a whole number and its unit. Without `bare`, a number needs a unit.
fn amount(text: &str, units: &[(&str, u64)], bare: Option<&str>) -> Option<u64> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim_start() {
        "" => bare?,
        unit => unit,
    };
    let (_, scale) = units.iter().find(|(known, _)| *known == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*scale)
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes such as \"256MiB\" or 4096")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Bytes, E> {
                Ok(Bytes(number))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Bytes, E> {
                u64::try_from(number)
                    .map(Bytes)
                    .map_err(|_| E::custom("a number of bytes cannot be negative"))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_and_written() {
        fn check(text: &str, expected: Option<u64>) {
            assert_eq!(text.parse().ok(), expected.map(Bytes), "{text:?}");
        }
        check("0", Some(0));
        check("4096", Some(4_096));
        check("1B", Some(1));
        check("256MiB", Some(256 << 20));
        check("256 MiB", Some(256 << 20));
        check(" 1KiB ", Some(1_024));
        check("2TiB", Some(2 << 40));
        check("1kB", Some(1_000));
        check("5GB", Some(5_000_000_000));
        check("", None);
        check("MiB", None);
        check("-1", None);
        check("1.5GiB", None);
        check("1 mib", None);
        check("1MiBs", None);
        check("99999999999TiB", None);
        for (bytes, text) in [
            (0, "0B"),
            (1, "1B"),
            (1_023, "1023B"),
            (1_024, "1KiB"),
            (1_536, "1536B"),
            (256 << 20, "256MiB"),
            (3 << 40, "3TiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
            assert_eq!(text.parse(), Ok(Bytes(bytes)));
        }
    }

    #[test]
    fn times_are_read_and_written() {
        fn check(text: &str, expected: Option<u64>) {
            assert_eq!(text.parse().ok(), expected.map(Time::millis), "{text:?}");
        }
        check("500ms", Some(500));
        check("30s", Some(30_000));
        check("15 m", Some(900_000));
        check("24h", Some(86_400_000));
        check("7d", Some(604_800_000));
        check("30", None);
        check("", None);
        check("1w", None);
        for (millis, text) in [
            (0, "0s"),
            (1, "1ms"),
            (1_500, "1500ms"),
            (30_000, "30s"),
            (90_000, "90s"),
            (86_400_000, "24h"),
        ] {
            assert_eq!(Time::millis(millis).to_string(), text);
            assert_eq!(text.parse(), Ok(Time::millis(millis)));
        }
    }
}
