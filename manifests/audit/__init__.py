"""The audit: every table and shard of a build held against the rules, and the report of what was found."""
