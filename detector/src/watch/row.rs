//! PURE. A row of the view: styled text, fit to be shown, cut by the columns that it takes.

use unicode_width::UnicodeWidthChar;

use crate::text;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Heading,
    Faint,
    Good,
    Caution,
    Bad,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Row(Vec<(Style, String)>);

/// More than fits into any window.
const LONGEST: usize = 4096;
const CUT: &str = "...";

impl Row {
    /// Whatever is shown comes through here: no terminal escape of a stranger gets further.
    pub(super) fn text(mut self, style: Style, text: &str) -> Self {
        self.0
            .push((style, text::printable(text.as_bytes(), LONGEST)));
        self
    }

    /// Filled up to `width` columns, and a gap.
    pub(super) fn column(self, style: Style, text: &str, width: usize) -> Self {
        let mut row = self.text(style, text);
        if let Some((_, text)) = row.0.last_mut() {
            let fill = width.saturating_sub(columns(text)) + 1;
            text.extend(std::iter::repeat_n(' ', fill));
        }
        row
    }

    pub(super) fn cut(mut self, width: usize) -> Self {
        let all: usize = self.0.iter().map(|(_, text)| columns(text)).sum();
        if all <= width {
            return self;
        }
        let mark = &CUT[..CUT.len().min(width)];
        let mut room = width - mark.len();
        for index in 0..self.0.len() {
            let text = &mut self.0[index].1;
            let taken = columns(text);
            if taken <= room {
                room -= taken;
                continue;
            }
            text.truncate(fitting(text, room));
            text.push_str(mark);
            self.0.truncate(index + 1);
            break;
        }
        self
    }

    pub(super) fn plain(&self) -> String {
        let all: String = self.0.iter().map(|(_, text)| text.as_str()).collect();
        all.trim_end().to_owned()
    }

    pub(super) fn coloured(&self) -> String {
        let parts = self.0.iter().map(|(style, text)| {
            let code = match style {
                Style::Plain => return text.clone(),
                Style::Heading => "1",
                Style::Faint => "2",
                Style::Good => "32",
                Style::Caution => "33",
                Style::Bad => "1;31",
            };
            format!("\x1b[{code}m{text}\x1b[0m")
        });
        parts.collect()
    }
}

fn columns(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// How many bytes of `text` fit into `room` columns.
fn fitting(text: &str, mut room: usize) -> usize {
    for (index, c) in text.char_indices() {
        let width = c.width().unwrap_or(0);
        if width > room {
            return index;
        }
        room -= width;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(text: &str) -> Row {
        Row::default().text(Style::Plain, text)
    }

    #[test]
    fn a_row_is_cut_by_the_columns_that_it_takes_not_by_characters() {
        assert_eq!(row("12345678").cut(8).plain(), "12345678");
        assert_eq!(row("123456789").cut(8).plain(), "12345...");
        assert_eq!(row("日本語日本語").cut(8).plain(), "日本...");
        assert_eq!(row("日本語日").cut(8).plain(), "日本語日");
        assert_eq!(row("123").cut(2).plain(), "..");
    }

    #[test]
    fn a_cut_goes_through_all_parts_of_a_row() {
        let parts = row("1234").text(Style::Bad, "5678").text(Style::Good, "9");
        assert_eq!(parts.clone().cut(8).plain(), "12345...");
        assert_eq!(parts.clone().cut(7).plain(), "1234...");
        assert_eq!(parts.cut(9).plain(), "123456789");
    }

    #[test]
    fn a_stranger_cannot_steer_the_terminal() {
        let shown = row("a\x1b[2Jb\u{9b}c\r\nd").coloured();
        assert_eq!(shown, "a\\u{1b}[2Jb\\u{9b}c\\u{d}\\u{a}d");
    }
}
