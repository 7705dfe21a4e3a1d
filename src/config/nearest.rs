//! The known name nearest to a misspelled one.
//!
//! Used for config keys, variables, flags and commands alike, so that all of them answer a slip of the
//! finger in the same way.

/// The candidate with the fewest edits from `name`, unless even that one is too far to have been meant.
pub fn nearest(name: &str, candidates: impl IntoIterator<Item = String>) -> Option<String> {
    let name: Vec<char> = name.to_lowercase().chars().collect();
    if name.len() > 80 {
        return None;
    }
    // Two swapped letters are two edits, so all but the shortest names need room for two.
    let limit = if name.len() < 4 {
        1
    } else {
        (name.len() / 5).clamp(2, 3)
    };
    candidates
        .into_iter()
        .map(|known| (edits(&name, &known.to_lowercase().chars().collect::<Vec<_>>()), known))
        .filter(|(edits, _)| *edits <= limit)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, known)| known)
}

/// Levenshtein's distance, one row at a time.
fn edits(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_or_none() {
        let known = || ["sync", "origin", "destination", "check"].map(str::to_owned);
        for (name, answer) in [
            ("syn", Some("sync")),
            ("SYNC", Some("sync")),
            ("orgin", Some("origin")),
            ("detsination", Some("destination")),
            ("plan", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, known()).as_deref(), answer, "{name}");
        }
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        assert_eq!(edits(&chars("kitten"), &chars("sitting")), 3);
        assert_eq!(edits(&[], &chars("abc")), 3);
    }
}
