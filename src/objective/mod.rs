//! The methods: each a small file with its equation, paper and shapes. Pure: log-probs in, loss and
//! metrics out; the training loop knows nothing of any of them.
