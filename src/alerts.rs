//! What operators are told without asking.
