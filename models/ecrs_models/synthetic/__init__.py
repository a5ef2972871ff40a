"""Synthetic data shaped like JData 2019, drawn from known user preferences, and an oracle recommender.

The generator draws every user's preferences and stores them beside the data as ground truth ("planted"
preferences). From them the oracle computes the probability of each purchase, and with it the best possible
ranking, which bounds what any recommender can reach on these data.
"""
