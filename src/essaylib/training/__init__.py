"""How the corpus, the embedded model and the judge were made; nothing else imports this."""
