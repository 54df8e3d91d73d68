//! A text with `*` for any text.

/// A pattern: the pieces between the stars.
#[derive(Debug, PartialEq, Eq)]
pub struct Pattern {
    pieces: Vec<String>,
}

impl Pattern {
    /// From characters, and whether each stands for itself alone.
    pub fn new(chars: impl Iterator<Item = (char, bool)>) -> Self {
        let mut pieces = vec![String::new()];
        for (c, quoted) in chars {
            match pieces.last_mut() {
                Some(last) if c != '*' || quoted => last.push(c),
                _ => pieces.push(String::new()),
            }
        }
        Self { pieces }
    }

    /// Whether any text matches.
    pub fn is_any(&self) -> bool {
        self.pieces.len() > 1 && self.pieces.iter().all(String::is_empty)
    }

    /// Whether a text matches. Each piece is looked for behind the one before it, and the first place is as good as any: so the text is gone through once.
    pub fn matches(&self, text: &str) -> bool {
        let Some((first, rest)) = self.pieces.split_first() else { return false };
        let Some((last, middle)) = rest.split_last() else { return text == first };
        let Some(mut text) = text.strip_prefix(first.as_str()).and_then(|text| text.strip_suffix(last.as_str())) else { return false };
        for piece in middle {
            let Some((_, behind)) = text.split_once(piece.as_str()) else { return false };
            text = behind;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::new(text.chars().map(|c| (c, false)))
    }

    /// By trying everything.
    fn naive(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|at| naive(rest, &text[at..])),
            Some((c, rest)) => text.first() == Some(c) && naive(rest, &text[1..]),
        }
    }

    #[test]
    fn a_star_is_any_text() {
        for (stars, text) in [("*", ""), ("a*", "a"), ("*a", "bba"), ("a*b*c", "axbxbc"), ("**", "x"), ("a**b", "ab")] {
            assert!(pattern(stars).matches(text), "{stars} {text}");
        }
        for (stars, text) in [("a*a", "a"), ("ab*ba", "aba"), ("a", "ab"), ("*a", "ab"), ("a*b*c", "acb")] {
            assert!(!pattern(stars).matches(text), "{stars} {text}");
        }
        assert!(pattern("**").is_any() && !pattern("*a").is_any() && !pattern("").is_any());
    }

    proptest! {
        #[test]
        fn it_says_what_trying_everything_says(stars in "[ab*]{0,8}", text in "[ab]{0,10}") {
            let (chars, letters): (Vec<char>, Vec<char>) = (stars.chars().collect(), text.chars().collect());
            prop_assert_eq!(pattern(&stars).matches(&text), naive(&chars, &letters));
        }
    }
}
