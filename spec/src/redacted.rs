//! Credentials that were written into a URI are not said again.

/// The text with `…` for what stands between `://` and the last `@` of a word that is not the `@`
/// of a pin (`@sha256:`): credentials may hold `/`, `:` and `@` themselves.
pub fn without_credentials(text: &str) -> String {
    let mut pieces = text.split("://");
    let mut safe = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        safe.push_str("://");
        let end = piece
            .find(|c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '`'))
            .unwrap_or(piece.len());
        let hidden = piece[..end]
            .match_indices('@')
            .rfind(|(at, _)| !piece[at + 1..].starts_with("sha256:"));
        match hidden {
            Some((at, _)) => {
                safe.push('…');
                safe.push_str(&piece[at..]);
            }
            None => safe.push_str(piece),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_credentials_is_hidden() {
        for (text, said) in [
            (
                "bad 's3://id:secret@bucket/a' and oci://host/a@sha256:1\n",
                "bad 's3://…@bucket/a' and oci://host/a@sha256:1\n",
            ),
            ("s3://a:b@c@d", "s3://…@d"),
            ("s3://AKIA:se/cr+et@bucket/x", "s3://…@bucket/x"),
            ("oci://u:p/w@h/a@sha256:12", "oci://…@h/a@sha256:12"),
            ("gs://bucket/a", "gs://bucket/a"),
            ("name@host", "name@host"),
        ] {
            assert_eq!(without_credentials(text), said);
        }
    }
}
