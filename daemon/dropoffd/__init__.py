"""The daemon: takes jobs into custody and delivers them. `docs/design.md` shows the house."""
