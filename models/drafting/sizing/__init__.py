"""How much to draft: fixed by the user, or chosen by measurement."""
