//! A plan as a drawing: which steps read what others make.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::plan::{Plan, PlannedTask, order};

/// A language that drawings are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GraphForm {
    /// <https://mermaid.js.org>, which many Markdown viewers draw.
    Mermaid,
    /// Graphviz.
    Dot,
}

/// Tasks that differ only in analysis time, member and what they are repeated for.
#[derive(Debug, Default)]
struct Node {
    tasks: usize,
    values: Vec<String>,
    members: BTreeSet<u32>,
    times: BTreeSet<String>,
}

/// The steps of a plan, or the configurations if they have no steps, and an arrow to each from those that make
/// what it reads. Repetitions, members and analysis times are counted in the node of their step.
pub fn graph(plan: &Plan, form: GraphForm) -> String {
    let mut nodes: Vec<(&str, Node)> = Vec::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let mut node_of = Vec::with_capacity(plan.tasks.len());
    for task in &plan.tasks {
        let (step, value) = step_of(task);
        let at = *places.entry(step).or_insert_with(|| {
            nodes.push((step, Node::default()));
            nodes.len() - 1
        });
        node_of.push(at);
        let node = &mut nodes[at].1;
        node.tasks += 1;
        if let Some(value) =
            value.filter(|value| node.values.last().map(String::as_str) != Some(value))
        {
            node.values.push(value.to_owned());
        }
        node.members.insert(task.member);
        node.times.insert(task.analysis_time.to_string());
    }
    let mut arrows = BTreeSet::new();
    for (turn, others) in order::waits_for(&plan.tasks).iter().enumerate() {
        arrows.extend(others.iter().map(|other| (node_of[*other], node_of[turn])));
    }
    let labels: Vec<String> = nodes.iter().map(|(step, node)| label(step, node)).collect();
    match form {
        GraphForm::Mermaid => drawn("flowchart LR\n", &labels, &arrows, "", |at, label| {
            format!("n{at}[\"{label}\"]")
        }),
        GraphForm::Dot => drawn(
            "digraph plan {\n    rankdir=LR;\n    node [shape=box];\n",
            &labels,
            &arrows,
            "}\n",
            |at, label| format!("n{at} [label=\"{}\"]", label.replace("<br/>", "\\n")),
        ),
    }
}

/// `ai-land/grib2zarr` and `2020-02` of `ai-land/grib2zarr/2020-02`.
fn step_of(task: &PlannedTask) -> (&str, Option<&str>) {
    let name = &*task.configuration;
    match name.match_indices('/').nth(1) {
        Some((at, _)) => (&name[..at], Some(&name[at + 1..])),
        None => (name, None),
    }
}

fn label(step: &str, node: &Node) -> String {
    let mut lines = vec![step.to_owned()];
    if let [first, .., last] = node.values.as_slice() {
        lines.push(format!("{first} … {last}"));
    } else {
        lines.extend(node.values.iter().cloned());
    }
    if node.members.len() > 1 {
        lines.push(format!("{} members", node.members.len()));
    }
    if node.times.len() > 1 {
        lines.push(format!("{} analysis times", node.times.len()));
    }
    if node.tasks > 1 {
        lines.push(format!("{} tasks", node.tasks));
    }
    // A name is plain, but for what a folder may be called.
    lines.join("<br/>").replace('"', "'")
}

fn drawn(
    head: &str,
    labels: &[String],
    arrows: &BTreeSet<(usize, usize)>,
    foot: &str,
    node: impl Fn(usize, &str) -> String,
) -> String {
    let arrow = match head.starts_with("digraph") {
        true => "->",
        false => "-->",
    };
    let mut text = head.to_owned();
    for (at, label) in labels.iter().enumerate() {
        // Writing into a text does not fail.
        let _ = writeln!(text, "    {}", node(at, label));
    }
    for (from, to) in arrows {
        let _ = writeln!(text, "    n{from} {arrow} n{to}");
    }
    text + foot
}
