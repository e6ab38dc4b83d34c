// Reads the files named in os.Args[1] once per line of input, in the way of koordlet: os.Stat, os.ReadFile, strings.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
)

func numbers(path string) (map[string]float64, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	found := map[string]float64{}
	for _, line := range strings.Split(strings.TrimSpace(string(raw)), "\n") {
		words := strings.Fields(line)
		if len(words) == 1 {
			found[""], _ = strconv.ParseFloat(words[0], 64)
		} else if len(words) > 1 && strings.Contains(words[1], "=") {
			for _, word := range words[1:] {
				name, value, _ := strings.Cut(word, "=")
				found[words[0]+"."+name], _ = strconv.ParseFloat(value, 64)
			}
		} else if len(words) > 1 {
			found[words[0]], _ = strconv.ParseFloat(words[len(words)-1], 64)
		}
	}
	return found, nil
}

func main() {
	listing, err := os.ReadFile(os.Args[1])
	if err != nil {
		os.Exit(2)
	}
	paths := strings.Fields(string(listing))
	fmt.Println("ready")
	kept := make([]map[string]float64, len(paths))
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
		for at, path := range paths {
			if found, err := numbers(path); err == nil {
				kept[at] = found
			}
		}
		fmt.Println("done")
	}
}
