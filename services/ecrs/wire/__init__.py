"""Protobuf messages and the domain: conversion both ways, and the validation of requests."""
