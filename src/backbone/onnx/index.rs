//! The producer of every value of a graph, and its consumers.

use std::collections::{HashMap, HashSet};

use super::types::{Graph, Node};

/// Nodes by the values that they make and read. Positions are those in the graph's list of nodes.
#[derive(Debug, Clone)]
pub struct Index<'g> {
    nodes: &'g [Node],
    producers: HashMap<&'g str, usize>,
    consumers: HashMap<&'g str, Vec<usize>>,
    outputs: HashSet<&'g str>,
}

impl<'g> Index<'g> {
    pub fn of(graph: &'g Graph) -> Index<'g> {
        let (mut producers, mut consumers) = (HashMap::new(), HashMap::<&str, Vec<usize>>::new());
        for (at, node) in graph.nodes.iter().enumerate() {
            producers.extend(node.outputs.iter().filter(|o| !o.is_empty()).map(|o| (o.as_str(), at)));
            for value in node.inputs.iter().filter(|i| !i.is_empty()) {
                let list = consumers.entry(value).or_default();
                if list.last() != Some(&at) {
                    list.push(at);
                }
            }
        }
        let outputs = graph.outputs.iter().map(|o| o.name.as_str()).collect();
        Index { nodes: &graph.nodes, producers, consumers, outputs }
    }

    /// The same without the consumers that are not `needed`, and with other outputs.
    pub fn restricted(mut self, needed: &[bool], outputs: &[&'g str]) -> Index<'g> {
        self.consumers.values_mut().for_each(|list| list.retain(|at| needed[*at]));
        self.outputs = outputs.iter().copied().collect();
        self
    }

    /// The node that makes a value; None for inputs and constants.
    pub fn producer(&self, value: &str) -> Option<&'g Node> {
        self.position(value).map(|at| &self.nodes[at])
    }

    /// The position of the producer.
    pub fn position(&self, value: &str) -> Option<usize> {
        self.producers.get(value).copied()
    }

    /// The positions of the nodes that read a value, each once.
    pub fn consumers(&self, value: &str) -> &[usize] {
        self.consumers.get(value).map_or(&[], Vec::as_slice)
    }

    /// The nodes that read more of a value than its shape.
    pub fn readers(&self, value: &str) -> impl Iterator<Item = &'g Node> {
        self.consumers(value).iter().map(|&at| &self.nodes[at]).filter(|node| !node.is("Shape"))
    }

    /// The one node that reads a value that is no output of the graph.
    pub fn sole_consumer(&self, value: &str) -> Option<&'g Node> {
        match self.consumers(value) {
            &[one] if !self.is_output(value) => Some(&self.nodes[one]),
            _ => None,
        }
    }

    pub fn is_output(&self, value: &str) -> bool {
        self.outputs.contains(value)
    }

    /// For each node, whether one of the values `ends` depends on it.
    pub fn needed<'v>(&self, ends: impl IntoIterator<Item = &'v str>) -> Vec<bool>
    where
        'g: 'v,
    {
        let mut needed = vec![false; self.nodes.len()];
        let mut open: Vec<&str> = ends.into_iter().collect();
        while let Some(value) = open.pop() {
            if let Some(at) = self.position(value)
                && !std::mem::replace(&mut needed[at], true)
            {
                open.extend(self.nodes[at].inputs.iter().map(String::as_str));
            }
        }
        needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_know_their_nodes() {
        let nodes = vec![
            Node::new("Relu", &["x"], &["r"]),
            Node::new("Shape", &["r"], &["s"]),
            Node::new("Add", &["r", "r"], &["y"]),
        ];
        let graph = Graph { nodes, ..Graph::default() };
        let index = Index::of(&graph);
        assert_eq!((index.position("y"), index.producer("x")), (Some(2), None));
        assert_eq!((index.consumers("r"), index.readers("r").count()), (&[1, 2][..], 1));
        assert!(index.sole_consumer("r").is_none() && index.sole_consumer("x").is_some());
        let needed = index.needed(["y"]);
        assert_eq!(needed, [true, false, true]);
        let index = index.restricted(&needed, &["x"]);
        assert!(index.sole_consumer("r").is_some_and(|node| node.is("Add")) && index.sole_consumer("x").is_none());
    }
}
