//! Whose turn it is: one round of all requesters after the other, each requester's own in order.
//! So one who asks for much keeps himself waiting, not the others.

use std::collections::VecDeque;

/// A queue of `T`, shared by requesters `R`. Its owner bounds it.
#[derive(Debug)]
pub(super) struct Queue<R, T> {
    /// Whoever waits, in the order of their next turns. None of the lists is empty.
    rounds: VecDeque<(R, VecDeque<T>)>,
}

impl<R, T> Default for Queue<R, T> {
    fn default() -> Self {
        Self { rounds: VecDeque::new() }
    }
}

impl<R: PartialEq, T> Queue<R, T> {
    /// Behind the requester's own; one who had none waiting has his turn after all others.
    pub(super) fn push(&mut self, requester: R, item: T) {
        match self.rounds.iter_mut().find(|(known, _)| *known == requester) {
            Some((_, items)) => items.push_back(item),
            None => self.rounds.push_back((requester, [item].into())),
        }
    }

    /// The next.
    pub(super) fn pop(&mut self) -> Option<T> {
        let (requester, mut items) = self.rounds.pop_front()?;
        let item = items.pop_front();
        if !items.is_empty() {
            self.rounds.push_back((requester, items));
        }
        item
    }

    /// Takes out the first that is meant; everybody else keeps his turn.
    pub(super) fn remove(&mut self, is_meant: impl Fn(&T) -> bool) -> Option<T> {
        for round in 0..self.rounds.len() {
            let items = &mut self.rounds[round].1;
            if let Some(index) = items.iter().position(&is_meant) {
                let item = items.remove(index);
                if items.is_empty() {
                    self.rounds.remove(round);
                }
                return item;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn order(asked: &str) -> String {
        let mut queue = Queue::default();
        for (index, requester) in asked.chars().enumerate() {
            queue.push(requester, (requester, index));
        }
        std::iter::from_fn(|| queue.pop()).map(|(requester, index)| format!("{requester}{index} ")).collect()
    }

    #[test]
    fn requesters_take_turns() {
        for (asked, served) in [
            ("", ""),
            ("aaa", "a0 a1 a2 "),
            ("ab", "a0 b1 "),
            ("aaaab", "a0 b4 a1 a2 a3 "),
            ("aaabbc", "a0 b3 c5 a1 b4 a2 "),
            ("abab", "a0 b1 a2 b3 "),
        ] {
            assert_eq!(order(asked), served, "{asked}");
        }
    }

    #[test]
    fn what_is_taken_out_costs_nobody_his_turn() {
        let mut queue = Queue::default();
        for (requester, item) in [('a', 0), ('a', 1), ('b', 2), ('c', 3)] {
            queue.push(requester, item);
        }
        assert_eq!(queue.remove(|item| *item == 2), Some(2));
        assert_eq!(queue.remove(|item| *item == 2), None);
        assert_eq!(queue.remove(|item| *item == 0), Some(0));
        assert_eq!(std::iter::from_fn(|| queue.pop()).collect::<Vec<_>>(), [1, 3]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(u8),
        Pop,
        Remove(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..5_u8).prop_map(Step::Push),
            2 => Just(Step::Pop),
            1 => (0..64_usize).prop_map(Step::Remove),
        ]
    }

    proptest! {
        #[test]
        fn nothing_is_lost_each_is_in_order_and_nobody_is_passed_over(steps in proptest::collection::vec(step(), 0..200)) {
            let mut queue = Queue::default();
            // Each requester's own, and how often others went since his first one is waiting.
            let mut waiting: Vec<(u8, usize)> = Vec::new();
            let mut passed = [0_usize; 5];
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Push(requester) => {
                        queue.push(requester, (requester, number));
                        waiting.push((requester, number));
                    }
                    Step::Pop => {
                        let popped = queue.pop();
                        prop_assert_eq!(popped.is_none(), waiting.is_empty());
                        let Some((requester, number)) = popped else { continue };
                        let first = waiting.iter().position(|(other, _)| *other == requester);
                        prop_assert_eq!(first.map(|at| waiting.remove(at)), Some((requester, number)));
                        for other in 0..5_u8 {
                            let waits = waiting.iter().any(|(who, _)| *who == other);
                            let count = &mut passed[usize::from(other)];
                            *count = if other == requester || !waits { 0 } else { *count + 1 };
                            prop_assert!(*count < 5, "{} was passed over {} times", other, count);
                        }
                    }
                    Step::Remove(number) => {
                        let there = waiting.iter().position(|(_, n)| *n == number);
                        let removed = queue.remove(|(_, n)| *n == number);
                        prop_assert_eq!(removed, there.map(|at| waiting.remove(at)));
                        if let Some((requester, _)) = removed
                            && waiting.iter().all(|(who, _)| *who != requester)
                        {
                            passed[usize::from(requester)] = 0;
                        }
                    }
                }
            }
            let left: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
            prop_assert_eq!(left.len(), waiting.len());
            prop_assert!(queue.rounds.is_empty());
        }
    }
}
