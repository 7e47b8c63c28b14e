//! Sizes as people write them.

/// Reads `8388608`, `8 MiB`, `512KiB`, `1 GB`.
pub(crate) fn parse(text: &str) -> Result<usize, String> {
    let mend = "write a number of bytes, or a number and one of KiB, MiB, GiB, kB, MB, GB, such as \"8 MiB\"";
    let text = text.trim();
    let digits = text
        .bytes()
        .take_while(|b| b.is_ascii_digit() || *b == b'_')
        .count();
    let (number, unit) = text.split_at(digits);
    let number: usize = number
        .replace('_', "")
        .parse()
        .map_err(|_| mend.to_owned())?;
    let factor: usize = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(mend.to_owned()),
    };
    number.checked_mul(factor).ok_or_else(|| mend.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        assert_eq!(parse("8388608"), Ok(8 << 20));
        assert_eq!(parse("8 MiB"), Ok(8 << 20));
        assert_eq!(parse("512KiB"), Ok(512 << 10));
        assert_eq!(parse("1 GB"), Ok(1_000_000_000));
        for wrong in [
            "",
            "MiB",
            "8 mib",
            "-1",
            "8.5 MiB",
            "99999999999999999999",
            "99999999999999 GiB",
        ] {
            assert!(parse(wrong).unwrap_err().contains("MiB"), "{wrong}");
        }
    }
}
