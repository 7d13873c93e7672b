"""Who may do what: each rule one small function, none of them knows a dialect or an upstream."""
