//! House rules that a program can check, over every Rust file of the repository.

use std::fs;
use std::path::{Path, PathBuf};

/// A file fails above the one, and is listed above the other.
const FILE_LINES_MAX: usize = 500;
const FILE_LINES_GOAL: usize = 400;
/// The same for functions. A line of a test's table is no reason to split it, hence the difference.
const FUNCTION_LINES_MAX: usize = 100;
const FUNCTION_LINES_GOAL: usize = 70;

#[test]
fn files_and_functions_are_short() {
    let mut long = Vec::new();
    let mut near = Vec::new();
    for file in rust_files() {
        let lines = file.text.lines().count();
        if lines > FILE_LINES_GOAL {
            let found = format!("{}: {lines} lines", file.name);
            if lines > FILE_LINES_MAX { long.push(found) } else { near.push(found) }
        }
        for Function { name, line, lines } in functions(&file.text) {
            if lines > FUNCTION_LINES_GOAL {
                let found = format!("{}:{line}: fn {name} has {lines} lines", file.name);
                if lines > FUNCTION_LINES_MAX { long.push(found) } else { near.push(found) }
            }
        }
    }
    println!("near the limits of {FILE_LINES_MAX} and {FUNCTION_LINES_MAX} lines:\n{}", near.join("\n"));
    assert!(long.is_empty(), "too long:\n{}", long.join("\n"));
}

#[test]
fn nothing_is_left_undone_or_unsafe() {
    // Put together here, so that this file does not find itself.
    let words = [["un", "safe"], ["todo", "!"], ["unimplemented", "!"], ["dbg", "!"]].map(|parts| parts.concat());
    let mut found = Vec::new();
    for file in rust_files() {
        for (number, line) in code(&file.text).lines().enumerate() {
            for word in words.iter().filter(|word| has_word(line, word)) {
                found.push(format!("{}:{}: {word}", file.name, number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The wall clock jumps, and no test can make it: so what decides until when a node serves does not know it.
#[test]
fn leases_know_no_wall_clock() {
    let places = ["ownership/", "node/driver", "node/permit.rs", "engine/proof.rs", "engine/gate.rs"];
    let decides = |name: &str| {
        name.strip_prefix("runtime/src/").is_some_and(|name| places.iter().any(|place| name.starts_with(place)))
    };
    let files: Vec<_> = rust_files().into_iter().filter(|file| decides(&file.name)).collect();
    assert!(places.iter().all(|place| files.iter().any(|file| file.name.contains(place))), "a place has moved");
    let mut found = Vec::new();
    for file in files {
        // A simulation has one time for all.
        let code = code(&file.text).replace("simulation::wall_ms", "");
        for (number, line) in code.lines().enumerate() {
            for word in ["SystemTime", "UNIX_EPOCH", "wall_ms"].iter().filter(|word| has_word(line, word)) {
                found.push(format!("{}:{}: {word}", file.name, number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn files_are_named_after_what_they_hold() {
    let nameless = ["utils.rs", "util.rs", "helpers.rs", "misc.rs", "common.rs"];
    let found: Vec<_> = rust_files()
        .into_iter()
        .map(|file| file.name)
        .filter(|name| nameless.iter().any(|bad| Path::new(name).file_name().is_some_and(|file| file == *bad)))
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn nothing_points_outside_the_repository() {
    let outside = [["..", "/shared"], ["/wo", "rk/"], ["/ro", "ot/"]].map(|parts| parts.concat());
    let kinds = ["rs", "toml", "md", "conf", "yml", "yaml", "json", "py", "sh", "html"];
    let mut found = Vec::new();
    for file in files(|path| path.extension().is_some_and(|kind| kinds.iter().any(|known| kind == *known))) {
        for (number, line) in file.text.lines().enumerate() {
            for word in outside.iter().filter(|word| line.contains(*word)) {
                found.push(format!("{}:{}: {word}", file.name, number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_module_says_what_it_is() {
    let silent: Vec<_> = rust_files()
        .into_iter()
        .filter(|file| file.name.starts_with("runtime/src/") && !file.text.starts_with("//!"))
        .map(|file| file.name)
        .collect();
    assert!(silent.is_empty(), "{}", silent.join("\n"));
}

/// A file of the repository: its path from the root, and what is in it.
struct File {
    name: String,
    text: String,
}

fn rust_files() -> Vec<File> {
    let files = files(|path| path.extension().is_some_and(|kind| kind == "rs"));
    assert!(files.len() > 50, "the search finds too little: {}", files.len());
    files
}

fn files(wanted: impl Fn(&Path) -> bool) -> Vec<File> {
    let root = xtask::workspace_root();
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    paths.retain(|path| wanted(path));
    paths.sort();
    let read = |path: PathBuf| {
        let name = path.strip_prefix(&root).unwrap_or(&path).to_string_lossy().into_owned();
        // A file that is written at this moment by somebody else may be gone.
        fs::read_to_string(&path).ok().map(|text| File { name, text })
    };
    paths.into_iter().filter_map(read).collect()
}

fn walk(dir: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            if name != "target" && name != ".git" && name != "node_modules" {
                walk(&path, paths);
            }
        } else {
            paths.push(path);
        }
    }
}

/// A function with a body: where its head begins, and how many lines it takes from there.
struct Function {
    name: String,
    line: usize,
    lines: usize,
}

/// Counts braces, which is enough once strings, characters and comments are out of the way.
fn functions(text: &str) -> Vec<Function> {
    let code = code(text);
    let mut open: Vec<(String, usize, usize)> = Vec::new();
    let mut all = Vec::new();
    let mut head: Option<(String, usize)> = None;
    let mut depth = 0;
    for (number, line) in code.lines().enumerate() {
        let mut rest = line;
        while let Some(at) = rest.find(['{', '}', ';', 'f']) {
            let before = rest[..at].chars().next_back();
            let tail = &rest[at..];
            match tail.as_bytes()[0] {
                b'{' => {
                    depth += 1;
                    if let Some((name, line)) = head.take() {
                        open.push((name, line, depth));
                    }
                }
                b'}' => {
                    if open.last().is_some_and(|function| function.2 == depth)
                        && let Some((name, line, _)) = open.pop()
                    {
                        all.push(Function { name, line: line + 1, lines: number - line + 1 });
                    }
                    depth -= 1;
                }
                b';' => head = None,
                _ => {
                    if tail.starts_with("fn ") && !before.is_some_and(is_word) {
                        let name = tail[3..].chars().take_while(|c| is_word(*c)).collect();
                        head = Some((name, number));
                    }
                }
            }
            rest = &rest[at + 1..];
        }
    }
    all
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, found)| {
        let before = line[..at].chars().next_back().is_some_and(is_word);
        let goes_on = found.ends_with(is_word) && line[at + found.len()..].starts_with(is_word);
        !before && !goes_on
    })
}

/// The text with everything blanked that is no code: comments, strings and characters. Lines stay
/// lines.
fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(hashes) = raw_string(rest) {
            let end = format!("\"{}", "#".repeat(hashes));
            let body = 2 + hashes;
            rest[body..].find(&end).map_or(rest.len(), |at| body + at + end.len())
        } else if first == '"' {
            quoted(rest, '"')
        } else if first == '\'' && is_character(rest) {
            quoted(rest, '\'')
        } else {
            0
        };
        if skip == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            // So that the `r` of a name such as `for` is not taken for that of a raw string.
            if is_word(first) {
                let word = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
                out.push_str(&rest[..word]);
                rest = &rest[word..];
            }
        } else {
            out.extend(rest[..skip].chars().filter(|c| *c == '\n'));
            rest = &rest[skip..];
        }
    }
    out
}

/// How many hashes a raw string has that begins here.
fn raw_string(text: &str) -> Option<usize> {
    let rest = text.strip_prefix('r')?;
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    rest[hashes..].starts_with('"').then_some(hashes)
}

/// Whether this quote begins a character, not a lifetime.
fn is_character(text: &str) -> bool {
    let mut chars = text.chars().skip(1);
    matches!((chars.next(), chars.next()), (Some('\\'), _) | (Some(_), Some('\'')))
}

fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

#[test]
fn the_scanner_sees_what_the_compiler_sees() {
    let braces =
        ["let a = \"}{\";", "let b = r#\"}\"#;", "// }", "/* } /* } */ */", "let c = '}'; let d: &'static str;"];
    let text = format!(
        "impl A {{\n    fn long(\n        x: u8,\n    ) {{\n{}\n    }}\n    fn declared();\n}}\n",
        braces.join("\n")
    );
    let found: Vec<_> = functions(&text).into_iter().map(|f| (f.name, f.line, f.lines)).collect();
    assert_eq!(found, [("long".to_owned(), 2, 4 + braces.len())], "{}", code(&text));
    assert!(has_word("an dbg!(x)", "dbg!") && !has_word("my_dbg!(x)", "dbg!"));
}
