"""The space of KDAS: a backbone that stays, with operations added between its layers."""
