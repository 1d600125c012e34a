//! YAML (and JSON, which is YAML) as a tree that remembers the line of every key.
//!
//! It knows nothing of policies. Scalars keep their text, because the same `off` is a word for one
//! reader and `false` for another: see [`scalar`].

pub(crate) mod scalar;
#[cfg(test)]
mod tests;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};
use scalar::Reader;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::fmt;

/// Nesting beyond this is refused: nothing that people write comes near, and recursion stays short.
const DEPTH_MAX: usize = 64;
/// Nodes of one file, aliases expanded: a thousand services with routes need a tenth of it, and a
/// "billion laughs" document stops here.
const NODES_MAX: usize = 500_000;

/// Something that is wrong at a line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// From 1.
    pub(crate) line: usize,
    /// As `rate_limits[0].requests`; empty for the whole document.
    pub(crate) path: String,
    /// What is wrong.
    pub(crate) wrong: String,
    /// What is allowed.
    pub(crate) allowed: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "(document)" } else { &self.path };
        write!(f, "{}: {path}: {}; allowed: {}", self.line, self.wrong, self.allowed)
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Line of its first character, from 1; of a block's text, not of its `|`.
    pub(crate) line: usize,
    /// What it is.
    pub(crate) kind: Kind,
}

/// The three shapes of YAML.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// Text, and whether it was written bare (and may thus be a number or a boolean).
    Scalar {
        /// The text, quotes and folding undone.
        text: String,
        /// Whether quotes, a block or `!!str` make it a string whatever it looks like.
        style: Style,
    },
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in the order of the file; duplicate keys are all kept, see [`duplicates`].
    Map(Vec<Entry>),
}

/// How a scalar was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Without quotes on one line.
    Plain,
    /// In quotes, as a block, or tagged as a string.
    Quoted,
}

/// One key of a mapping.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The key's text.
    pub(crate) key: String,
    /// The key's line.
    pub(crate) line: usize,
    /// The value.
    pub(crate) value: Node,
}

impl Node {
    /// The value of a key; `None` when it is not there or this is no mapping.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The first of several spellings of one key.
    pub(crate) fn get_any(&self, keys: &[&str]) -> Option<&Self> {
        keys.iter().find_map(|key| self.get(key))
    }

    /// The text of a scalar.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, .. } => Some(text),
            Kind::List(_) | Kind::Map(_) => None,
        }
    }

    /// The text of the scalar under a key.
    pub(crate) fn text_of(&self, keys: &[&str]) -> Option<&str> {
        self.get_any(keys).and_then(Self::text)
    }

    /// Whether it is nothing: an empty document, `~` or `null`.
    pub(crate) fn is_null(&self) -> bool {
        self.to_json(Reader::Core).is_null()
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|entry| entry.key == key),
            Kind::Scalar { .. } | Kind::List(_) => None,
        }
    }

    /// The value as `reader` would understand it; of duplicate keys the first.
    pub(crate) fn to_json(&self, reader: Reader) -> Value {
        match &self.kind {
            Kind::Scalar { text, style: Style::Plain } => reader.read(text),
            Kind::Scalar { text, .. } => Value::String(text.clone()),
            Kind::List(nodes) => nodes.iter().map(|node| node.to_json(reader)).collect(),
            Kind::Map(entries) => {
                let mut map = Map::new();
                for entry in entries {
                    if !map.contains_key(&entry.key) {
                        map.insert(entry.key.clone(), entry.value.to_json(reader));
                    }
                }
                Value::Object(map)
            }
        }
    }

    /// The line of a path such as `a.b[2].c`: of the last key on it that exists.
    pub(crate) fn line_of(&self, path: &str) -> usize {
        self.seek(path, self.line)
    }

    fn seek(&self, path: &str, line: usize) -> usize {
        let path = path.strip_prefix('.').unwrap_or(path);
        if path.is_empty() {
            return line;
        }
        match &self.kind {
            Kind::Scalar { .. } => line,
            Kind::List(nodes) => match index_of(path) {
                Some((index, rest)) => match nodes.get(index) {
                    Some(node) => node.seek(rest, node.line),
                    None => line,
                },
                None => line,
            },
            Kind::Map(entries) => longest_key(entries, path)
                .map_or(line, |(entry, rest)| entry.value.seek(rest, entry.line)),
        }
    }

    /// The value at a path; `None` when it is not there.
    pub(crate) fn at(&self, path: &str) -> Option<&Self> {
        let path = path.strip_prefix('.').unwrap_or(path);
        if path.is_empty() {
            return Some(self);
        }
        match &self.kind {
            Kind::Scalar { .. } => None,
            Kind::List(nodes) => {
                let (index, rest) = index_of(path)?;
                nodes.get(index)?.at(rest)
            }
            Kind::Map(entries) => {
                let (entry, rest) = longest_key(entries, path)?;
                entry.value.at(rest)
            }
        }
    }

    /// Moves every line down, for a document that stood inside another.
    pub(crate) fn shift(&mut self, lines: usize) {
        self.line = self.line.saturating_add(lines);
        match &mut self.kind {
            Kind::Scalar { .. } => {}
            Kind::List(nodes) => nodes.iter_mut().for_each(|node| node.shift(lines)),
            Kind::Map(entries) => entries.iter_mut().for_each(|entry| {
                entry.line = entry.line.saturating_add(lines);
                entry.value.shift(lines);
            }),
        }
    }
}

/// `[12].rest` -> 12 and `.rest`.
fn index_of(path: &str) -> Option<(usize, &str)> {
    let (number, rest) = path.strip_prefix('[')?.split_once(']')?;
    Some((number.parse().ok()?, rest))
}

/// Keys may hold dots themselves (claims that are URLs), so the longest key that fits wins.
fn longest_key<'a, 'p>(entries: &'a [Entry], path: &'p str) -> Option<(&'a Entry, &'p str)> {
    let fits = |entry: &'a Entry| {
        let rest = path.strip_prefix(entry.key.as_str())?;
        (rest.is_empty() || rest.starts_with(['.', '['])).then_some((entry, rest))
    };
    entries.iter().filter_map(fits).max_by_key(|(entry, _)| entry.key.len())
}

/// Every key that stands twice in one mapping.
pub(crate) fn duplicates(node: &Node, path: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    match &node.kind {
        Kind::Scalar { .. } => {}
        Kind::List(nodes) => {
            for (index, node) in nodes.iter().enumerate() {
                found.extend(duplicates(node, &format!("{path}[{index}]")));
            }
        }
        Kind::Map(entries) => {
            let mut seen: HashMap<&str, usize> = HashMap::new();
            for entry in entries {
                let path = join(path, &entry.key);
                if let Some(line) = seen.get(entry.key.as_str()) {
                    found.push(Finding {
                        line: entry.line,
                        path: path.clone(),
                        wrong: format!("this key stands on line {line} already"),
                        allowed: "each key once".to_owned(),
                    });
                } else {
                    seen.insert(&entry.key, entry.line);
                }
                found.extend(duplicates(&entry.value, &path));
            }
        }
    }
    found
}

/// `path.key`, without a leading dot.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Reads all documents of a text.
///
/// # Errors
/// The first place where the text is not YAML, or where a bound of this reader is passed.
pub(crate) fn parse(text: &str) -> Result<Vec<Node>, Finding> {
    let mut builder =
        Builder { parser: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0, line: 1 };
    let mut documents = Vec::new();
    while let Some((event, _)) = builder.next()? {
        match event {
            Event::DocumentStart(_) => {
                if let Some((event, span)) = builder.next()? {
                    documents.push(builder.node(event, span, 0)?);
                }
            }
            Event::StreamEnd => break,
            _ => {}
        }
    }
    Ok(documents)
}

struct Builder<'input> {
    parser: Parser<'input, StrInput<'input>>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    line: usize,
}

impl<'input> Builder<'input> {
    fn next(&mut self) -> Result<Option<(Event<'input>, Span)>, Finding> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok((event, span))) => {
                self.line = span.start.line().max(1);
                Ok(Some((event, span)))
            }
            Some(Err(error)) => {
                self.line = error.marker().line().max(1);
                Err(self.refuse(error.info(), "well-formed YAML"))
            }
        }
    }

    fn refuse(&self, wrong: &str, allowed: &str) -> Finding {
        Finding {
            line: self.line,
            path: String::new(),
            wrong: wrong.to_owned(),
            allowed: allowed.to_owned(),
        }
    }

    fn count(&mut self, nodes: usize) -> Result<(), Finding> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > NODES_MAX {
            return Err(self.refuse(
                "the document is too large with its aliases expanded",
                &format!("at most {NODES_MAX} values"),
            ));
        }
        Ok(())
    }

    fn node(&mut self, event: Event<'input>, span: Span, depth: usize) -> Result<Node, Finding> {
        if depth > DEPTH_MAX {
            let allowed = format!("at most {DEPTH_MAX} levels");
            return Err(self.refuse("the document is nested too deeply", &allowed));
        }
        let before = self.nodes;
        self.count(1)?;
        let line = span.start.line().max(1);
        let (anchor, kind) = match event {
            Event::Alias(anchor) => return self.alias(anchor, line),
            Event::Scalar(text, style, anchor, tag) => {
                let string = tag.is_some_and(|tag| tag.suffix == "str" || tag.handle == "!");
                let style = match style {
                    ScalarStyle::Plain if !string => Style::Plain,
                    _ => Style::Quoted,
                };
                (anchor, Kind::Scalar { text: text.into_owned(), style })
            }
            Event::SequenceStart(anchor, _) => (anchor, Kind::List(self.list(depth)?)),
            Event::MappingStart(anchor, _) => (anchor, Kind::Map(self.map(depth)?)),
            _ => return Err(self.refuse("a value was expected here", "well-formed YAML")),
        };
        let node = Node { line, kind };
        if anchor != 0 {
            let size = self.nodes.saturating_sub(before);
            self.anchors.insert(anchor, (node.clone(), size));
        }
        Ok(node)
    }

    fn alias(&mut self, anchor: usize, line: usize) -> Result<Node, Finding> {
        let Some((mut node, size)) = self.anchors.get(&anchor).cloned() else {
            return Err(self.refuse("an alias of something that is not complete yet", "a tree"));
        };
        self.count(size)?;
        node.line = line;
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Finding> {
        let mut nodes = Vec::new();
        while let Some((event, span)) = self.next()? {
            if event == Event::SequenceEnd {
                break;
            }
            nodes.push(self.node(event, span, depth + 1)?);
        }
        Ok(nodes)
    }

    fn map(&mut self, depth: usize) -> Result<Vec<Entry>, Finding> {
        let mut entries = Vec::new();
        while let Some((event, span)) = self.next()? {
            if event == Event::MappingEnd {
                break;
            }
            let key = self.node(event, span, depth + 1)?;
            let Kind::Scalar { text, .. } = key.kind else {
                return Err(self.refuse("a key is a list or a mapping", "text as key"));
            };
            if let Some((event, span)) = self.next()? {
                let value = self.node(event, span, depth + 1)?;
                entries.push(Entry { key: text, line: key.line, value });
            }
        }
        Ok(entries)
    }
}
