//! Sizes as people write and read them.

/// Reads `10Gi`, `500M`, `1.5Ti`, `12e6`, `1073741824` and such: the quantities of Kubernetes
/// (`apimachinery/pkg/api/resource/quantity.go`), parts of a byte rounded up as there.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size: write for example 10Gi, 500M or 1073741824");
    quantity(text).ok_or_else(wrong)
}

/// Decimals of a quantity: Kubernetes goes down to nano.
const DECIMALS_MAX: usize = 9;

fn quantity(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, suffix) = text.split_at(end.unwrap_or(text.len()));
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + decimals.len() == 0 || decimals.len() > DECIMALS_MAX {
        return None;
    }
    let digits: u128 = format!("{whole}{decimals}").parse().ok()?;
    let (factor, exponent) = match suffix {
        "" => (1, 0),
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        _ => (1, suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?),
    };
    let exponent = exponent.checked_sub(decimals.len() as i32)?;
    let digits = digits.checked_mul(factor)?;
    let power = 10u128.checked_pow(exponent.unsigned_abs());
    let bytes = match exponent {
        0.. => digits.checked_mul(power?)?,
        // A power beyond all numbers leaves a part of a byte.
        _ => power.map_or(u128::from(digits > 0), |power| digits.div_ceil(power)),
    };
    bytes.try_into().ok()
}

/// Three digits and a unit: `8.00 GiB`.
pub(crate) fn show_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.decimals$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1073741824", Some(1 << 30)),
            ("10Gi", Some(10 << 30)),
            ("500M", Some(500_000_000)),
            ("3k", Some(3000)),
            ("1Ti", Some(1 << 40)),
            ("", None),
            ("Gi", None),
            ("1.5Gi", Some(3 << 29)),
            ("1P", Some(1_000_000_000_000_000)),
            ("1Pi", Some(1 << 50)),
            ("1Ei", Some(1 << 60)),
            ("1E", Some(1_000_000_000_000_000_000)),
            ("12e6", Some(12_000_000)),
            ("12E6", Some(12_000_000)),
            ("5e-1", Some(1)),
            ("1500m", Some(2)),
            ("2000m", Some(2)),
            ("1n", Some(1)),
            (".5k", Some(500)),
            ("5.", Some(5)),
            (".", None),
            ("1.2.3", None),
            ("1e", None),
            ("1e99999999999", None),
            ("1e-99999", Some(1)),
            ("16Ei", None),
            ("1K", None),
            ("-1", None),
            ("10 Gi", None),
            ("10GB", None),
            ("99999999Ti", None),
        ] {
            assert_eq!(parse_size(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn sizes_are_shown() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (8 << 30, "8.00 GiB"),
            (10_480_000, "9.99 MiB"),
            (15 << 20, "15.0 MiB"),
            (526_254_080, "502 MiB"),
            ((1 << 30) - 1, "1.00 GiB"),
        ] {
            assert_eq!(show_size(bytes), expected, "{bytes}");
        }
    }
}
