//! What a Rust source names: enough of a scanner to tell which modules of its own crate a file uses.
//!
//! Comments and literals are skipped. Not a parser: macros are read as plain tokens, which is what the layer rules want.

/// One token: an identifier, or a single punctuation character (`::` is one token).
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    Word(String),
    Path,
    Mark(char),
}

/// A path that starts at the crate's root, such as `crate::frame::Frame`: its words, and the line it stands on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RootPath {
    pub(crate) words: Vec<String>,
    pub(crate) line: usize,
}

/// What one source says.
#[derive(Debug, Default)]
pub(crate) struct Outline {
    /// Modules that are declared at the top of the file: name, and whether the body stands in the file (`mod x { … }`).
    pub(crate) modules: Vec<(String, bool)>,
    /// Every path from the crate's root, groups (`crate::{a, b::c}`) taken apart. The module in the file is named first.
    pub(crate) paths: Vec<(Option<String>, RootPath)>,
    /// What the file itself imports or re-exports at its top: the words of each leaf of each `use`.
    pub(crate) uses: Vec<Vec<String>>,
}

/// Reads a source. `depth` is how many modules deep the file lies (0 for lib.rs), so that `super` can be counted;
/// `own_names` are words that mean the crate's root besides `crate` (the library's name in its own main.rs).
pub(crate) fn read(source: &str, depth: usize, own_names: &[&str]) -> Outline {
    let tokens = tokens(source);
    let mut outline = Outline::default();
    // One entry an open brace: the name of the module it belongs to, if it does.
    let mut braces: Vec<Option<String>> = Vec::new();
    let mut pending: Option<String> = None;
    let mut at = 0;
    while at < tokens.len() {
        let (token, line) = &tokens[at];
        match token {
            Token::Mark('{') => braces.push(pending.take()),
            Token::Mark('}') => {
                braces.pop();
            }
            Token::Word(word) if word == "mod" => {
                if let (Some((Token::Word(name), _)), Some((next, _))) = (tokens.get(at + 1), tokens.get(at + 2))
                    && matches!(next, Token::Mark('{') | Token::Mark(';'))
                {
                    if braces.is_empty() {
                        outline.modules.push((name.clone(), *next == Token::Mark('{')));
                    }
                    if *next == Token::Mark('{') {
                        pending = Some(name.clone());
                    }
                    at += 2;
                    continue;
                }
            }
            Token::Word(word) if word == "use" && braces.is_empty() => {
                collect(&tokens, at + 1, &mut Vec::new(), &mut |words, _| outline.uses.push(words));
            }
            Token::Word(word) => {
                let starts_path = at == 0 || !matches!(tokens[at - 1].0, Token::Path);
                let followed = matches!(tokens.get(at + 1), Some((Token::Path, _)));
                if starts_path && followed {
                    let inside: Vec<&String> = braces.iter().flatten().collect();
                    let mut rest = None;
                    if word == "crate" || own_names.contains(&word.as_str()) {
                        rest = Some(at + 2);
                    } else if word == "super" {
                        let mut steps = 1;
                        let mut next = at + 2;
                        while matches!(tokens.get(next), Some((Token::Word(word), _)) if word == "super")
                            && matches!(tokens.get(next + 1), Some((Token::Path, _)))
                        {
                            steps += 1;
                            next += 2;
                        }
                        if steps == depth + inside.len() {
                            rest = Some(next);
                        }
                    }
                    if let Some(rest) = rest {
                        let module = inside.first().map(|name| (*name).clone());
                        collect(&tokens, rest, &mut Vec::new(), &mut |words, line| {
                            outline.paths.push((module.clone(), RootPath { words, line }));
                        });
                    }
                }
            }
            _ => {}
        }
        let _ = line;
        at += 1;
    }
    outline
}

/// Walks a path or a use tree from `at` and reports each leaf; returns the place behind it.
fn collect(
    tokens: &[(Token, usize)],
    mut at: usize,
    prefix: &mut Vec<String>,
    leaf: &mut dyn FnMut(Vec<String>, usize),
) -> usize {
    let before = prefix.len();
    let line = tokens.get(at).map_or(0, |(_, line)| *line);
    loop {
        match tokens.get(at) {
            Some((Token::Word(word), _)) => {
                prefix.push(word.clone());
                at += 1;
            }
            Some((Token::Mark('{'), _)) => {
                at += 1;
                while !matches!(tokens.get(at), Some((Token::Mark('}'), _)) | None) {
                    at = collect(tokens, at, prefix, leaf);
                    // `as name`, and whatever a macro may have put here, is stepped over.
                    while !matches!(tokens.get(at), Some((Token::Mark(',' | '}'), _)) | None) {
                        at += 1;
                    }
                    if matches!(tokens.get(at), Some((Token::Mark(','), _))) {
                        at += 1;
                    }
                }
                prefix.truncate(before);
                return at + 1;
            }
            Some((Token::Path, _)) if prefix.len() == before => {
                at += 1;
                continue;
            }
            _ => break,
        }
        if matches!(tokens.get(at), Some((Token::Path, _))) {
            at += 1;
        } else {
            break;
        }
    }
    if prefix.len() > before || before > 0 {
        leaf(prefix.clone(), line);
    }
    prefix.truncate(before);
    at
}

/// Splits a source into tokens with their lines; comments, strings, characters and lifetimes are left out.
pub(crate) fn tokens(source: &str) -> Vec<(Token, usize)> {
    let text: Vec<char> = source.chars().collect();
    let mut found = Vec::new();
    let mut line = 1;
    let mut at = 0;
    while at < text.len() {
        let character = text[at];
        let next = text.get(at + 1).copied().unwrap_or('\0');
        match character {
            '\n' => {
                line += 1;
                at += 1;
            }
            '/' if next == '/' => {
                while at < text.len() && text[at] != '\n' {
                    at += 1;
                }
            }
            '/' if next == '*' => {
                let mut depth = 0;
                while at < text.len() {
                    match (text[at], text.get(at + 1).copied().unwrap_or('\0')) {
                        ('/', '*') => {
                            depth += 1;
                            at += 2;
                        }
                        ('*', '/') => {
                            depth -= 1;
                            at += 2;
                        }
                        (other, _) => {
                            line += usize::from(other == '\n');
                            at += 1;
                        }
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
            '"' => at = skip_string(&text, at, &mut line),
            '\'' => at = skip_character(&text, at),
            _ if character.is_alphabetic() || character == '_' => {
                let start = at;
                while at < text.len() && (text[at].is_alphanumeric() || text[at] == '_') {
                    at += 1;
                }
                let word: String = text[start..at].iter().collect();
                let raw = matches!(word.as_str(), "r" | "br" | "cr");
                match text.get(at) {
                    Some('#') if word == "r" && text.get(at + 1).is_some_and(|next| next.is_alphabetic()) => at += 1,
                    Some('"' | '#') if raw && opens_raw_string(&text, at) => at = skip_raw_string(&text, at, &mut line),
                    Some('"') if matches!(word.as_str(), "b" | "c") => at = skip_string(&text, at, &mut line),
                    Some('\'') if word == "b" => at = skip_character(&text, at),
                    _ => found.push((Token::Word(word), line)),
                }
            }
            ':' if next == ':' => {
                found.push((Token::Path, line));
                at += 2;
            }
            _ => {
                if !character.is_whitespace() && !character.is_ascii_digit() {
                    found.push((Token::Mark(character), line));
                }
                at += 1;
            }
        }
    }
    found
}

fn opens_raw_string(text: &[char], at: usize) -> bool {
    text[at..].iter().find(|character| **character != '#') == Some(&'"')
}

fn skip_raw_string(text: &[char], mut at: usize, line: &mut usize) -> usize {
    let mut hashes = 0;
    while text.get(at) == Some(&'#') {
        hashes += 1;
        at += 1;
    }
    at += 1;
    while at < text.len() {
        *line += usize::from(text[at] == '\n');
        if text[at] == '"'
            && text[at + 1..].iter().take(hashes).filter(|character| **character == '#').count() == hashes
        {
            return at + 1 + hashes;
        }
        at += 1;
    }
    at
}

fn skip_string(text: &[char], mut at: usize, line: &mut usize) -> usize {
    at += 1;
    while at < text.len() && text[at] != '"' {
        *line += usize::from(text[at] == '\n');
        if text[at] == '\\' {
            at += 1;
            *line += usize::from(text.get(at) == Some(&'\n'));
        }
        at += 1;
    }
    at + 1
}

/// A character literal is skipped whole, a lifetime loses its quote and its name.
fn skip_character(text: &[char], at: usize) -> usize {
    match (text.get(at + 1), text.get(at + 2)) {
        (Some('\\'), _) => {
            let mut end = at + 3;
            while end < text.len() && text[end] != '\'' {
                end += 1;
            }
            end + 1
        }
        (Some(_), Some('\'')) => at + 3,
        _ => {
            let mut end = at + 1;
            while end < text.len() && (text[end].is_alphanumeric() || text[end] == '_') {
                end += 1;
            }
            end
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(source: &str, depth: usize) -> Vec<String> {
        read(source, depth, &[]).paths.into_iter().map(|(_, path)| path.words.join("::")).collect()
    }

    #[test]
    fn groups_are_taken_apart() {
        let source =
            "use crate::{alpha::{Beta, gamma::Delta as D}, epsilon};\nuse crate::zeta;\nfn f() -> crate::eta::Theta {}";
        assert_eq!(paths(source, 1), ["alpha::Beta", "alpha::gamma::Delta", "epsilon", "zeta", "eta::Theta"]);
    }

    #[test]
    fn comments_and_literals_are_not_code() {
        let source = r####"// crate::a::b
            /* crate::c /* nested */ crate::d */ /// crate::e
            const X: &str = "crate::f \" crate::g"; const R: &str = r#"crate::h " crate::i"#; const C: char = '"';
            fn life<'a>(x: &'a str) -> char { '\'' } const B: &[u8] = b"crate::j"; use crate::real;"####;
        assert_eq!(paths(source, 1), ["real"]);
    }

    #[test]
    fn super_is_counted_to_the_root() {
        let source = "use super::brother::X; mod inner { use super::own::Y; use super::super::other::Z; }";
        assert_eq!(paths(source, 1), ["brother::X", "other::Z"]);
        assert_eq!(paths("use super::own; use super::super::foreign::A;", 2), ["foreign::A"]);
    }

    #[test]
    fn modules_and_reexports_of_the_root_are_listed() {
        let outline =
            read("mod a; pub mod b { mod c; } pub use a::{X, y::Z}; #[cfg(test)] mod tests { use super::a; }", 0, &[]);
        assert_eq!(outline.modules, [("a".to_owned(), false), ("b".to_owned(), true), ("tests".to_owned(), true)]);
        assert_eq!(
            outline.uses,
            [vec!["a".to_owned(), "X".to_owned()], vec!["a".to_owned(), "y".to_owned(), "Z".to_owned()]]
        );
        assert_eq!(outline.paths, [(Some("tests".to_owned()), RootPath { words: vec!["a".to_owned()], line: 1 })]);
    }

    #[test]
    fn lines_are_right_and_the_librarys_own_name_counts() {
        let outline = read("\"a\nb\";\n\n  house::roof::Tile", 0, &["house"]);
        assert_eq!(outline.paths, [(None, RootPath { words: vec!["roof".to_owned(), "Tile".to_owned()], line: 4 })]);
    }
}
